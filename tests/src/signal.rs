//! Signals to a child by its process id: the one place of the harness that needs `unsafe`.
#![allow(unsafe_code)]

/// A signal a test sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A polite request to end.
    Terminate,
    /// Stop the process where it stands, until [`Signal::Continue`].
    Stop,
    /// Go on after [`Signal::Stop`].
    Continue,
    /// The end, at once.
    Kill,
}

/// Sends `signal` to the process `pid`, which must be a child that has not been waited for, or a child of one.
pub fn send(pid: u32, signal: Signal) {
    let number = match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
        Signal::Kill => libc::SIGKILL,
    };
    let pid = libc::pid_t::try_from(pid).expect("a process id fits pid_t");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    let result = unsafe { libc::kill(pid, number) };
    assert_eq!(result, 0, "kill({pid}, {signal:?}): {}", std::io::Error::last_os_error());
}

/// SIGKILL to what is left of the process group that `leader`, a child of ours, was started to lead.
pub fn kill_group(leader: u32) {
    let group = libc::pid_t::try_from(leader).expect("a process id fits pid_t");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    let result = unsafe { libc::kill(-group, libc::SIGKILL) };
    let error = std::io::Error::last_os_error();
    // Nobody being left is what is hoped for.
    assert!(result == 0 || error.raw_os_error() == Some(libc::ESRCH), "kill(-{group}): {error}");
}

/// Lets the process `pid` have no more address space than `bytes`: what it has beyond stays, and it gets no more.
pub fn limit_memory(pid: u32, bytes: u64) {
    limit(pid, libc::RLIMIT_AS, bytes);
}

/// Lets the process `pid` write no file beyond `bytes`.
pub fn limit_files(pid: u32, bytes: u64) {
    limit(pid, libc::RLIMIT_FSIZE, bytes);
}

fn limit(pid: u32, what: libc::__rlimit_resource_t, bytes: u64) {
    let pid = libc::pid_t::try_from(pid).expect("a process id fits pid_t");
    // The limit up to which it may be raised again stays as high as it can be.
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is valid for the call, and nothing is written back.
    let result = unsafe { libc::prlimit(pid, what, &limit, std::ptr::null_mut()) };
    assert_eq!(result, 0, "prlimit({pid}): {}", std::io::Error::last_os_error());
}
