//! Paging structures of the three kinds of legacy paging, all with the same linear memory.
//!
//! The first 4 GiB are mapped one to one for privilege level 0, but for
//!
//! - page 0 and the last page of the 4 GiB, which belong to the tests;
//! - the page that virtual-8086 code runs in;
//! - [`WINDOW`]: 512 pages that a test maps as it likes;
//! - [`LARGE`]: 4 MiB of physical memory from 0 on, twice over, by large pages where the kind has them.

use rt::page::Page;

/// The linear address of the window.
pub const WINDOW: u32 = 0xc000_0000;
/// Large pages of privilege level 3: physical memory from 0 on.
pub const LARGE: u32 = 0xd000_0000;
/// The same, read-only.
pub const LARGE_READ_ONLY: u32 = 0xd100_0000;
/// The same, with a reserved bit set.
pub const LARGE_RESERVED: u32 = 0xd200_0000;
/// Where virtual-8086 code runs.
pub const V86: u32 = 0x8000;
/// The last page of the linear addresses.
pub const LAST: u32 = 0xffff_f000;

/// Entry bit: present.
pub const P: u64 = 1;
/// Entry bit: may be written.
pub const W: u64 = 2;
/// Entry bit: for privilege level 3.
pub const U: u64 = 4;
/// Entry bit: accessed.
pub const A: u64 = 0x20;
/// Entry bit: dirty.
pub const D: u64 = 0x40;
const PS: u64 = 0x80;

/// A kind of paging outside IA-32e mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// PAE paging.
    Pae,
    /// 32-bit paging with 4 MiB pages.
    Pse,
    /// 32-bit paging, CR4.PSE 0: bit 7 of a directory entry is ignored.
    Small,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Pae, Self::Pse, Self::Small];

    /// The word in transcripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pae => "pae",
            Self::Pse => "pse",
            Self::Small => "4k",
        }
    }

    /// The bits of CR4 that choose it.
    pub fn cr4(self) -> u32 {
        match self {
            Self::Pae => 1 << 5,
            Self::Pse => 1 << 4,
            Self::Small => 0,
        }
    }
}

/// One hierarchy.
pub struct Tables {
    /// What it is for.
    pub kind: Kind,
    /// Page-directory-pointer table, or page directory.
    root: Page,
    /// PAE paging: the four directories, one after another.
    directories: Page,
}

impl Tables {
    /// A hierarchy of the kind.
    pub fn new(kind: Kind) -> Self {
        let tables = Self {
            kind,
            root: Page::alloc(1),
            directories: if kind == Kind::Pae {
                Page::alloc(4)
            } else {
                Page::alloc(1)
            },
        };
        let size = tables.large_bytes();
        if kind == Kind::Pae {
            for n in 0..4 {
                tables
                    .root
                    .write(8 * n, (tables.directories.address() + 4096 * n) | P);
            }
        }
        for linear in (0..1 << 32).step_by(size as usize) {
            tables.set_directory(linear as u32, linear | PS | P | W);
        }
        for (start, bits) in [(LARGE, U | W), (LARGE_READ_ONLY, U)] {
            for at in (0..8 << 20).step_by(size as usize) {
                tables.set_directory(start + at as u32, at | PS | P | bits);
            }
        }
        tables.set_directory(
            LARGE_RESERVED,
            PS | P | U | W | 1 << if kind == Kind::Pae { 20 } else { 21 },
        );
        if kind == Kind::Small {
            // Large pages do not exist: what is needed of the identity map by tables.
            for linear in (0..16 << 20).step_by(4 << 20) {
                tables.split(linear as u32, linear, W);
            }
            for (start, bits) in [(LARGE, U | W), (LARGE_READ_ONLY, U)] {
                for at in (0..8u32 << 20).step_by(4 << 20) {
                    tables.split(start + at, at.into(), bits);
                }
            }
        } else {
            tables.split(0, 0, W);
        }
        tables.split(LAST, u64::from(LAST) & !(size - 1), W);
        tables.split(WINDOW, 0, 0);
        for page in 0..512 {
            tables.map(WINDOW + page * 4096, 0, 0);
        }
        tables
    }

    /// What CR3 gets.
    pub fn cr3(&self) -> u32 {
        self.root.address() as u32
    }

    /// PAE paging: makes the second GiB begin with physical memory from 0 on, for all privilege levels.
    /// Its linear address.
    pub fn open_second_directory(&self) -> u32 {
        const START: u32 = 1 << 30;
        self.root.write(8, (self.directories.address() + 4096) | P);
        for at in (0..8 << 20).step_by(2 << 20) {
            self.set_directory(START + at as u32, at | PS | P | W | U);
        }
        START
    }

    /// The bytes that a directory entry covers.
    fn large_bytes(&self) -> u64 {
        if self.kind == Kind::Pae {
            2 << 20
        } else {
            4 << 20
        }
    }

    /// Where the directory entry of an address lies, and how wide it is.
    fn directory_slot(&self, linear: u32) -> (Page, u64) {
        let index = u64::from(linear) / self.large_bytes();
        if self.kind == Kind::Pae {
            (self.directories, index * 8)
        } else {
            (self.root, index * 4)
        }
    }

    fn set_directory(&self, linear: u32, entry: u64) {
        let (page, at) = self.directory_slot(linear);
        if self.kind == Kind::Pae {
            page.write(at, entry);
        } else {
            page.write(at, entry as u32);
        }
    }

    /// The directory entry of an address.
    pub fn directory(&self, linear: u32) -> u64 {
        let (page, at) = self.directory_slot(linear);
        if self.kind == Kind::Pae {
            page.read(at)
        } else {
            page.read::<u32>(at).into()
        }
    }

    /// Clears the accessed and dirty flags of the directory entry of an address.
    pub fn clear_flags(&self, linear: u32) {
        self.set_directory(linear, self.directory(linear) & !(A | D));
    }

    /// Puts a page table below a directory entry, mapping `physical` on.
    fn split(&self, linear: u32, physical: u64, bits: u64) {
        let table = Page::alloc(1);
        let wide = self.kind == Kind::Pae;
        for n in 0..if wide { 512 } else { 1024 } {
            let entry = (physical + n * 4096) | P | bits;
            if wide {
                table.write(n * 8, entry);
            } else {
                table.write(n * 4, entry as u32);
            }
        }
        // Without CR4.PSE bit 7 is ignored: it stays, to show that.
        let ps = if self.kind == Kind::Small { PS } else { 0 };
        self.set_directory(linear, table.address() | ps | P | W | U);
    }

    /// Where the last-level entry of an address lies.
    fn slot(&self, linear: u32) -> u64 {
        let table = self.directory(linear) & 0xffff_f000;
        if self.kind == Kind::Pae {
            table + u64::from(linear >> 12 & 0x1ff) * 8
        } else {
            table + u64::from(linear >> 12 & 0x3ff) * 4
        }
    }

    /// The last-level entry of an address that is mapped by small pages.
    pub fn entry(&self, linear: u32) -> u64 {
        let slot = self.slot(linear);
        // SAFETY: the entry lies within a table of the pool, made by `split`.
        unsafe {
            if self.kind == Kind::Pae {
                (slot as *const u64).read_volatile()
            } else {
                (slot as *const u32).read_volatile().into()
            }
        }
    }

    /// Sets the last-level entry of an address that is mapped by small pages.
    pub fn map(&self, linear: u32, physical: u64, bits: u64) {
        let (slot, entry) = (self.slot(linear), physical | bits);
        // SAFETY: as for `entry`.
        unsafe {
            if self.kind == Kind::Pae {
                (slot as *mut u64).write_volatile(entry);
            } else {
                (slot as *mut u32).write_volatile(entry as u32);
            }
        }
    }
}
