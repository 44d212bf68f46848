//! What was appended and is not durable yet, in memory.

use std::ops::Range;

use cairn_format::Lsn;
use cairn_format::frame::TimeStamp;

/// A place between two commits where a frame may end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// Offset in the group's bytes.
    pub(crate) at: usize,
    /// Database selected there.
    pub(crate) database: u32,
    /// Whether a new segment begins there.
    pub(crate) rotate: bool,
}

/// Effects that become durable together. The first mark is at 0; all marks rise, and each is a commit boundary, as
/// is the end.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) first_lsn: Lsn,
    pub(crate) bytes: Vec<u8>,
    pub(crate) stamps: Vec<TimeStamp>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) end_database: u32,
    /// How many commits it holds.
    pub(crate) commits: u32,
}

/// The commits between two marks.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) range: Range<usize>,
    pub(crate) database: u32,
    pub(crate) end_database: u32,
    pub(crate) rotate: bool,
}

impl Group {
    pub(crate) fn end_lsn(&self) -> Lsn {
        self.first_lsn.advance(self.bytes.len())
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.marks.iter().enumerate().map(|(index, mark)| {
            let next = self.marks.get(index + 1);
            Run {
                range: mark.at..next.map_or(self.bytes.len(), |next| next.at),
                database: mark.database,
                end_database: next.map_or(self.end_database, |next| next.database),
                rotate: mark.rotate,
            }
        })
    }

    /// Empties the group for reuse from `lsn` on.
    pub(crate) fn reset(&mut self, lsn: Lsn, database: u32) {
        self.first_lsn = lsn;
        self.bytes.clear();
        self.stamps.clear();
        self.marks.clear();
        self.marks.push(Mark { at: 0, database, rotate: false });
        self.end_database = database;
        self.commits = 0;
    }
}

/// The buffer that appenders share with the writer, and the writer's orders.
pub(crate) struct Pending {
    pub(crate) group: Group,
    /// Time of the newest stamp; times never decrease.
    last_ms: u64,
    /// A mark is set about this often, so that frames end between commits.
    run_bytes: usize,
    /// The appender that makes the buffer this long wakes the writer.
    pub(crate) wake_at: usize,
    pub(crate) sync_requested: bool,
    pub(crate) stop: bool,
    /// The next append selects its database whatever is selected: where a journal goes on that is not always known.
    select_next: bool,
    /// Once poisoned nothing is kept: nobody will ever write it.
    pub(crate) poisoned: bool,
    /// The stream's end, kept even when the bytes are not.
    end: Lsn,
}

impl Pending {
    pub(crate) fn new(lsn: Lsn, database: u32, last_ms: u64, run_bytes: usize) -> Pending {
        let mut group = Group { bytes: Vec::with_capacity(256 << 10), ..Group::default() };
        group.reset(lsn, database);
        Pending {
            group,
            last_ms,
            run_bytes,
            wake_at: usize::MAX,
            sync_requested: false,
            stop: false,
            select_next: true,
            poisoned: false,
            end: lsn,
        }
    }

    /// Appends one commit and returns its end.
    #[inline]
    pub(crate) fn append(&mut self, database: u32, effects: &[u8], now_ms: u64) -> Lsn {
        let length = self.group.bytes.len();
        let in_run = length - self.group.marks.last().map_or(0, |mark| mark.at);
        if in_run > 0 && in_run.max(effects.len()) >= self.run_bytes {
            self.group.marks.push(Mark { at: length, database: self.group.end_database, rotate: false });
        }
        if now_ms > self.last_ms || length == 0 {
            self.last_ms = self.last_ms.max(now_ms);
            self.group.stamps.push(TimeStamp { lsn: self.end, unix_ms: self.last_ms });
        }
        if database != self.group.end_database || self.select_next {
            self.select_next = false;
            self.select(database);
        }
        self.group.bytes.extend_from_slice(effects);
        self.group.commits = self.group.commits.saturating_add(1);
        self.end = self.group.end_lsn();
        if self.poisoned {
            let (end, database) = (self.end, self.group.end_database);
            self.group.reset(end, database);
        }
        self.end
    }

    /// Makes the end of the stream a boundary between segments.
    pub(crate) fn rotate(&mut self) -> Lsn {
        let (at, database) = (self.group.bytes.len(), self.group.end_database);
        match self.group.marks.last_mut() {
            Some(mark) if mark.at == at => mark.rotate = true,
            _ => self.group.marks.push(Mark { at, database, rotate: true }),
        }
        self.end
    }

    /// Takes all there is and leaves the (emptied) `spare` in its place.
    pub(crate) fn take(&mut self, mut spare: Group) -> Group {
        spare.reset(self.end, self.group.end_database);
        std::mem::replace(&mut self.group, spare)
    }

    /// Forgets what is there and whatever follows.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
        let (end, database) = (self.end, self.group.end_database);
        self.group.reset(end, database);
    }

    #[cold]
    fn select(&mut self, database: u32) {
        let digits = database.to_string();
        let effect = format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{digits}\r\n", digits.len());
        self.group.bytes.extend_from_slice(effect.as_bytes());
        self.group.end_database = database;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_between_commits_and_a_large_commit_is_alone() {
        let mut pending = Pending::new(Lsn(10), 0, 0, 100);
        pending.select_next = false;
        for _ in 0..5 {
            pending.append(0, &[1; 40], 7);
        }
        pending.append(0, &[2; 500], 7);
        pending.append(3, &[3; 10], 8);
        let group = pending.take(Group::default());
        let runs: Vec<_> = group.runs().map(|run| (run.range, run.database, run.end_database)).collect();
        assert_eq!(runs[0], (0..120, 0, 0));
        assert_eq!(runs[1], (120..200, 0, 0));
        assert_eq!(runs[2], (200..700, 0, 0));
        assert_eq!(runs[3], (700..700 + 23 + 10, 0, 3));
        assert_eq!(&group.bytes[700..723], b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
        assert_eq!(group.stamps.len(), 2);
        assert_eq!(group.stamps[1], TimeStamp { lsn: Lsn(710), unix_ms: 8 });
        assert_eq!(pending.end, group.end_lsn());
    }

    #[test]
    fn times_never_decrease_and_each_group_opens_with_one() {
        let mut pending = Pending::new(Lsn(0), 0, 50, 100);
        pending.select_next = false;
        pending.append(0, b"abc", 40);
        pending.append(0, b"abc", 45);
        let group = pending.take(Group::default());
        assert_eq!(group.stamps, [TimeStamp { lsn: Lsn(0), unix_ms: 50 }]);
        pending.append(0, b"abc", 30);
        assert_eq!(pending.group.stamps, [TimeStamp { lsn: Lsn(6), unix_ms: 50 }]);
    }

    #[test]
    fn a_rotation_is_a_mark_even_with_nothing_pending() {
        let mut pending = Pending::new(Lsn(5), 0, 0, 100);
        pending.select_next = false;
        assert_eq!(pending.rotate(), Lsn(5));
        pending.append(0, b"abc", 1);
        assert_eq!(pending.rotate(), Lsn(8));
        let group = pending.take(Group::default());
        let runs: Vec<_> = group.runs().map(|run| (run.range, run.rotate)).collect();
        assert_eq!(runs, [(0..3, true), (3..3, true)]);
        assert!(pending.group.bytes.is_empty());
    }
}
