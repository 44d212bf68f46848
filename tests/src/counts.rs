//! How often a test repeats: bounded for `make test`, in full for `make prove`.

/// Whether the full counts are asked for (`CAIRN_PROVE=1`).
pub fn prove() -> bool {
    std::env::var_os("CAIRN_PROVE").is_some_and(|value| value == "1")
}

/// `bounded` in `make test`, `full` in `make prove`.
pub fn of(bounded: usize, full: usize) -> usize {
    if prove() { full } else { bounded }
}
