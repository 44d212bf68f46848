//! How much memory is left for this process: what the machine has, or less where a control group (a container) allows less.

use std::path::Path;

/// How many bytes the process may still take, files in the page cache counted as room; `None` if the system does not tell.
/// `root` is where its files are: `/`, but for tests.
pub(crate) fn bytes(root: &Path) -> Option<u64> {
    let machine = machine_bytes(root);
    let group = group_bytes(root);
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Names in the two versions of control groups: where they are mounted, limit, use, and the field of `memory.stat` that says
/// how much of the use is page cache that can go.
const VERSIONS: [(&str, &str, &str, &str); 2] = [
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
];

/// What the group of this process leaves, the least of those it lies in; `None` where none has a limit.
fn group_bytes(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups.lines().filter_map(|line| line_bytes(root, line)).min()
}

/// A line is `0::/path` in version 2, and `7:memory:/path` in version 1.
fn line_bytes(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = match controllers {
        "" => VERSIONS[0],
        _ if controllers.split(',').any(|name| name == "memory") => VERSIONS[1],
        _ => return None,
    };
    let mount = root.join(version.0);
    let own = mount.join(path.trim_start_matches('/'));
    // Within a container the path may be that of outside, and its own group lies right at the mount.
    own.ancestors().take_while(|dir| dir.starts_with(&mount)).filter_map(|dir| left_in(dir, version)).min()
}

fn left_in(dir: &Path, (_, limit, used, cache): (&str, &str, &str, &str)) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    // No number is `max`: no limit.
    let (limit, used) = (number(limit)?, number(used)?);
    let stat = std::fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let field =
        stat.lines().find_map(|line| line.strip_prefix(cache)?.strip_prefix(' ')?.parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(field.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_machine_tells() {
        let left = bytes(Path::new("/")).unwrap();
        assert!(left > 1 << 20 && left < crate::sys::memory_bytes(), "{left}");
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(bytes(root), None);
        write(root, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
        assert_eq!(bytes(root), Some(8000 << 10));
        write(root, "proc/self/cgroup", "0::/a/b\n");
        write(root, "sys/fs/cgroup/a/b/memory.max", "max\n");
        write(root, "sys/fs/cgroup/a/b/memory.current", "1000\n");
        assert_eq!(bytes(root), Some(8000 << 10));
        write(root, "sys/fs/cgroup/a/memory.max", "1000000\n");
        write(root, "sys/fs/cgroup/a/memory.current", "400000\n");
        write(root, "sys/fs/cgroup/a/memory.stat", "anon 300000\ninactive_file 100000\n");
        assert_eq!(bytes(root), Some(700_000));
    }

    #[test]
    fn the_first_version_of_groups_is_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/self/cgroup", "12:cpu,cpuacct:/x\n7:memory:/docker/1\n");
        write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
        write(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "6000\n");
        write(root, "sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1500\n");
        assert_eq!(bytes(root), Some(500));
    }
}
