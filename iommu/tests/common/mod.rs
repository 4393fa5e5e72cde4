//! Memory for tables, and a DMAR table to be built piece by piece.
#![allow(dead_code)]

use std::collections::BTreeMap;

use umbra_iommu::mem::{PAGE_BYTES, Tables, WORDS};

/// Umbra's memory in these tests: what no device may ever reach.
pub const HIDDEN_START: u64 = 0x7f20_0000;
/// Its last byte.
pub const HIDDEN_LAST: u64 = 0x7fff_ffff;

/// Pages taken from [`HIDDEN_START`] on.
#[derive(Clone, Debug)]
pub struct Pages {
    pages: BTreeMap<u64, [u64; WORDS]>,
    /// What a unit that does not look into the caches would see.
    pub written_back: BTreeMap<u64, [u64; WORDS]>,
    next: u64,
    left: u32,
}

impl Pages {
    pub fn new(count: u32) -> Self {
        Self {
            pages: BTreeMap::new(),
            written_back: BTreeMap::new(),
            next: HIDDEN_START,
            left: count,
        }
    }

    pub fn taken(&self) -> usize {
        self.pages.len()
    }
}

impl Tables for Pages {
    fn take(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let page = self.next;
        self.next += PAGE_BYTES;
        self.pages.insert(page, [0; WORDS]);
        Some(page)
    }

    fn read(&self, page_hpa: u64, index: usize) -> u64 {
        self.pages[&page_hpa][index]
    }

    fn write(&mut self, page_hpa: u64, index: usize, value: u64) {
        self.pages.get_mut(&page_hpa).expect("a page of ours")[index] = value;
    }

    fn write_back(&mut self, page_hpa: u64) {
        self.written_back.insert(page_hpa, self.pages[&page_hpa]);
    }
}

/// A DMAR table with the given structures and a right length and sum.
pub fn dmar(width_less_1: u8, flags: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    let mut table = b"DMAR".to_vec();
    table.resize(48, 0);
    table[8] = 1;
    table[36] = width_less_1;
    table[37] = flags;
    for structure in structures {
        table.extend(structure);
    }
    seal(&mut table);
    table
}

/// Puts a table's length and sum right.
pub fn seal(table: &mut [u8]) {
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[9] = 0;
    let sum = table.iter().fold(0_u8, |sum, &b| sum.wrapping_add(b));
    table[9] = sum.wrapping_neg();
}

/// A structure: type, length, then the rest.
pub fn structure(kind: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((rest.len() as u16 + 4).to_le_bytes());
    bytes.extend(rest);
    bytes
}

/// DRHD.
pub fn drhd(flags: u8, size: u8, segment: u16, base: u64, scopes: &[u8]) -> Vec<u8> {
    let mut rest = vec![flags, size];
    rest.extend(segment.to_le_bytes());
    rest.extend(base.to_le_bytes());
    rest.extend(scopes);
    structure(0, &rest)
}

/// RMRR.
pub fn rmrr(base: u64, last: u64, scopes: &[u8]) -> Vec<u8> {
    let mut rest = vec![0; 4];
    rest.extend(base.to_le_bytes());
    rest.extend(last.to_le_bytes());
    rest.extend(scopes);
    structure(1, &rest)
}

/// A device scope with one device and function.
pub const SCOPE: [u8; 8] = [1, 8, 0, 0, 0, 0, 0x1f, 2];
