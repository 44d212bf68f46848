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
    }
}
