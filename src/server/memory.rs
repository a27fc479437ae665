//! How much memory the process may take: the smaller of what its control group and the machine have.
//!
//! In: `/proc` and `/sys/fs/cgroup` (proc(5), cgroups(7); versions 1 and 2). Out: bytes, or nothing where
//! there are no such files. A container's limit is its control group's: the machine's total says nothing
//! there.

use std::path::{Path, PathBuf};

/// Share of what there is that the process may hold: the rest is for what lies between two readings, and
/// for the kernel's buffers of its sockets, which count too.
const SHARE: f64 = 0.9;

/// Resident bytes above which no stream is admitted: `set`, or nine tenths of what there is; 0 if that
/// cannot be known.
pub(super) fn limit(set: u64) -> u64 {
    match set {
        0 => available(Path::new("/")).map_or(0, |bytes| (bytes as f64 * SHARE) as u64),
        set => set,
    }
}

/// What there is, below `root`, which is another folder in tests.
fn available(root: &Path) -> Option<u64> {
    let text = |path: &Path| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = machine_total(&text(Path::new("proc/meminfo")));
    let groups = group_files(&text(Path::new("proc/self/cgroup")));
    let own = groups.iter().filter_map(|file| text(file).trim().parse::<u64>().ok()).min();
    machine.into_iter().chain(own).min()
}

/// proc(5): `MemTotal:       16384256 kB`.
fn machine_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files that may hold a limit: those of the group and of all above it, since each of them binds. A
/// namespace may show the group's path as seen from outside, under which there is nothing here: then
/// the files at the top are the process's own.
fn group_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (top, file) = match controllers {
            // Version 2 has one hierarchy.
            "" => ("sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(top).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384 kB\nMemFree:        1 kB\n";

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_of_the_groups_binds_in_both_versions() {
        for (files, expected) in [
            (vec![("proc/meminfo", MEMINFO)], Some(16_384 << 10)),
            (
                vec![
                    ("proc/meminfo", MEMINFO),
                    ("proc/self/cgroup", "0::/pods/a\n"),
                    ("sys/fs/cgroup/pods/a/memory.max", "max\n"),
                    ("sys/fs/cgroup/pods/memory.max", "4096\n"),
                ],
                Some(4096),
            ),
            (
                vec![
                    ("proc/meminfo", MEMINFO),
                    ("proc/self/cgroup", "0::/seen/from/outside\n"),
                    ("sys/fs/cgroup/memory.max", "8192\n"),
                ],
                Some(8192),
            ),
            (
                vec![
                    ("proc/meminfo", MEMINFO),
                    ("proc/self/cgroup", "5:cpu:/x\n4:memory,other:/docker/b\n"),
                    ("sys/fs/cgroup/memory/docker/b/memory.limit_in_bytes", "1000\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                Some(1000),
            ),
            (vec![], None),
        ] {
            assert_eq!(available(root(&files).path()), expected, "{files:?}");
        }
    }

    #[test]
    fn a_limit_that_is_set_is_the_limit() {
        assert_eq!(limit(7), 7);
    }
}
