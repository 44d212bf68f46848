//! The few calls to the operating system that std has no safe name for.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Processor time used, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CpuTime {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

/// Whose processor time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose {
    Process,
    /// Children that have ended and were waited for.
    Children,
}

/// Processor time used so far; zero if the system does not tell.
pub(crate) fn cpu_time(whose: Whose) -> CpuTime {
    let who = match whose {
        Whose::Process => libc::RUSAGE_SELF,
        Whose::Children => libc::RUSAGE_CHILDREN,
    };
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to writable memory of the size of `rusage`, for the time of the call.
    let result = unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
    if result != 0 {
        return CpuTime::default();
    }
    // SAFETY: all zeros is a valid `rusage`, and so is what the successful call wrote.
    let usage = unsafe { usage.assume_init() };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    CpuTime { user: seconds(usage.ru_utime), system: seconds(usage.ru_stime) }
}

/// Processor time of the thread that the process began with; zero if the system does not tell.
pub(crate) fn main_thread_cpu_time() -> CpuTime {
    /// In all systems with `/proc`, whatever the kernel's own clock.
    const TICKS_PER_SECOND: f64 = 100.0;
    let id = std::process::id();
    let line = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap_or_default();
    // The name before it may hold anything, blanks and parentheses too.
    let after_name = line.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = after_name.split_ascii_whitespace().skip(11).map_while(|word| word.parse::<f64>().ok());
    let mut seconds = || ticks.next().unwrap_or(0.0) / TICKS_PER_SECOND;
    CpuTime { user: seconds(), system: seconds() }
}

/// How much physical memory the process has, in bytes; zero if the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let line = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    // SAFETY: the call only returns a number.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * u64::try_from(page_bytes).unwrap_or(0)
}

/// How much physical memory the machine has, in bytes; zero if the system does not tell.
pub(crate) fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Raises the number of files the process may hold open to `wanted`, or as far as the system allows; returns the
/// number it then may.
pub(crate) fn raise_open_files(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a writable `rlimit`, for the time of the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return wanted;
    }
    if limit.rlim_cur >= wanted {
        return limit.rlim_cur;
    }
    let raised = libc::rlimit { rlim_cur: wanted.min(limit.rlim_max), rlim_max: limit.rlim_max };
    // SAFETY: the pointer is to an initialised `rlimit`, for the time of the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
        raised.rlim_cur
    } else {
        limit.rlim_cur
    }
}

/// Lets a write beyond the limit for the size of files (`ulimit -f`) be an error of that write, and not the end of the
/// process.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: no handler of ours is set.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_answers() {
        let before = cpu_time(Whose::Process);
        let mut sum = 0_u64;
        while cpu_time(Whose::Process).user + cpu_time(Whose::Process).system <= before.user + before.system {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(raise_open_files(16) >= 16);
        assert!(cpu_time(Whose::Children).user >= 0.0);
        assert!(resident_bytes() > 1 << 20 && resident_bytes() < memory_bytes());
        let (main, all) = (main_thread_cpu_time(), cpu_time(Whose::Process));
        assert!(main.user + main.system <= all.user + all.system + 0.1);
    }
}
