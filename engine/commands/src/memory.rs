//! What memory is used for, as INFO and MEMORY STATS tell it.

/// Figures in bytes, all of one moment.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// In use by the program.
    pub used: u64,
    /// The most that was ever in use.
    pub peak: u64,
    /// In use before there was any data.
    pub startup: u64,
    /// Buffers of the clients.
    pub clients: u64,
    /// What waits to be written to the journal.
    pub journal: u64,
    /// Sources of the scripts that are known.
    pub scripts: u64,
    /// Sources of the function libraries.
    pub functions: u64,
    /// How many keys there are.
    pub keys: u64,
    /// Tables of the databases that have keys.
    pub tables: Vec<TableBytes>,
    /// Given out by the allocator.
    pub allocated: u64,
    /// In pages of the allocator that hold something.
    pub active: u64,
    /// In physical memory, as the allocator knows it.
    pub resident: u64,
    /// In physical memory, as the system knows it.
    pub process: u64,
}

/// What a database takes beside its entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableBytes {
    /// The number of the database.
    pub database: u16,
    /// Where its keys are.
    pub keys: u64,
    /// When they expire.
    pub expiries: u64,
}

impl Memory {
    /// What is in use, but not by the data.
    #[must_use]
    pub fn overhead(&self) -> u64 {
        let tables: u64 = self.tables.iter().map(|table| table.keys + table.expiries).sum();
        self.startup + self.clients + self.journal + self.scripts + self.functions + tables
    }

    /// What is in use by the data.
    #[must_use]
    pub fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead())
    }

    /// The data's share of what came into use after the start, in percent.
    #[must_use]
    pub fn dataset_percent(&self) -> f64 {
        ratio(self.dataset(), self.used.saturating_sub(self.startup)) * 100.0
    }

    /// How near to the peak it is, in percent.
    #[must_use]
    pub fn peak_percent(&self) -> f64 {
        ratio(self.used, self.peak) * 100.0
    }

    /// Bytes of the data for each key.
    #[must_use]
    pub fn bytes_per_key(&self) -> u64 {
        self.used.saturating_sub(self.startup).checked_div(self.keys).unwrap_or(0)
    }

    /// How much more memory each takes than the one it holds, as a ratio and in bytes: pages of the allocator, what is
    /// resident of them, the whole process, and that beside what is in use.
    #[must_use]
    pub fn surplus(&self) -> [(f64, i64); 4] {
        [
            (self.active, self.allocated),
            (self.resident, self.active),
            (self.process, self.resident),
            (self.process, self.used),
        ]
        .map(|(outer, inner)| (ratio(outer, inner), outer as i64 - inner as i64))
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_overhead_is_data() {
        let tables = vec![TableBytes { database: 0, keys: 64, expiries: 36 }];
        let memory = Memory { used: 1_000, peak: 2_000, startup: 200, keys: 4, tables, ..Memory::default() };
        assert_eq!((memory.overhead(), memory.dataset(), memory.bytes_per_key()), (300, 700, 200));
        assert_eq!((memory.dataset_percent(), memory.peak_percent()), (87.5, 50.0));
        let nothing = Memory::default();
        assert_eq!((nothing.bytes_per_key(), nothing.dataset_percent()), (0, 0.0));
    }
}
