//! Forgetting what a unit has cached. VT-d "Invalidation of Translation
//! Caches": by registers where that is all a unit has, by its queue else.

use crate::caps::Caps;
use crate::command::{Command, Stuck};
use crate::mem::{PAGE_BYTES, Tables};
use crate::regs::{self, Registers};

/// How often a register is read before a unit counts as stuck.
pub const PATIENCE: u32 = 1_000_000;

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Context entries, of all domains.
    Contexts,
    /// Translations, of all domains.
    Everything,
    /// Translations of a domain.
    Domain(u16),
    /// Translations of a domain for 2^`order` pages from `address`, which is
    /// aligned to as many. A unit that cannot do so forgets the whole domain.
    Pages {
        /// The domain.
        domain: u16,
        /// The first page.
        address: u64,
        /// How many pages, as a power of 2.
        order: u8,
    },
}

/// The word of `IOTLB_REG` or of a descriptor, but for where its parts stand:
/// how much (1 all, 2 a domain, 3 pages), the domain, and the pages.
fn reach(what: What, caps: &Caps) -> (u64, u16, u64) {
    match what {
        What::Contexts | What::Everything => (1, 0, 0),
        What::Domain(domain) => (2, domain, 0),
        What::Pages {
            domain,
            address,
            order,
        } => {
            let aligned = address % (PAGE_BYTES << order.min(51)) == 0;
            if caps.cap.page_invalidation() && order <= caps.cap.max_address_mask() && aligned {
                (3, domain, address & !0xfff | u64::from(order))
            } else {
                (2, domain, 0)
            }
        }
    }
}

/// Forgets by `CCMD_REG` and `IOTLB_REG`, and waits until it is done.
///
/// # Errors
/// [`Stuck`]: the unit does not finish.
pub fn by_registers(regs: &mut impl Registers, caps: &Caps, what: What) -> Result<(), Stuck> {
    const INVALIDATE: u64 = 1 << 63;
    const DRAIN_READS: u64 = 1 << 49;
    const DRAIN_WRITES: u64 = 1 << 48;

    let (how_much, domain, pages) = reach(what, caps);
    let (offset, word) = if what == What::Contexts {
        (regs::CCMD, how_much << 61)
    } else {
        if pages != 0 || how_much == 3 {
            regs.write64(caps.iva_offset(), pages);
        }
        let mut word = how_much << 60 | u64::from(domain) << 32;
        if caps.cap.read_draining() {
            word |= DRAIN_READS;
        }
        if caps.cap.write_draining() {
            word |= DRAIN_WRITES;
        }
        (caps.iotlb_offset(), word)
    };
    regs.write64(offset, INVALIDATE | word);
    for _ in 0..PATIENCE {
        if regs.read64(offset) & INVALIDATE == 0 {
            return Ok(());
        }
        regs.pause();
    }
    Err(Stuck(if what == What::Contexts {
        Command::InvalidateContexts
    } else {
        Command::InvalidateTranslations
    }))
}

/// A unit's invalidation queue: one page, 256 descriptors of 16 bytes. Each
/// request is followed by a wait for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    page_hpa: u64,
    status_hpa: u64,
    /// The next descriptor to be written.
    tail: usize,
    /// What the next wait writes.
    ticket: u32,
    is_coherent: bool,
}

/// Descriptors in a queue of one page.
const DESCRIPTORS: usize = 256;

impl Queue {
    /// A queue of its own page; `None` if there is no page left.
    pub fn new(tables: &mut impl Tables, caps: &Caps) -> Option<Self> {
        Some(Self {
            page_hpa: tables.take()?,
            status_hpa: tables.take()?,
            tail: 0,
            ticket: 0,
            is_coherent: caps.ecap.coherent(),
        })
    }

    /// For `IQA_REG`: one page (QS 0), descriptors of 16 bytes (DW 0).
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.page_hpa
    }

    fn push(&mut self, tables: &mut impl Tables, low: u64, high: u64) {
        tables.write(self.page_hpa, 2 * self.tail, low);
        tables.write(self.page_hpa, 2 * self.tail + 1, high);
        self.tail = (self.tail + 1) % DESCRIPTORS;
    }

    /// Forgets, and waits until it is done.
    ///
    /// # Errors
    /// [`Stuck`]: the unit does not finish, or refuses a descriptor.
    pub fn invalidate(
        &mut self,
        regs: &mut impl Registers,
        tables: &mut impl Tables,
        caps: &Caps,
        what: What,
    ) -> Result<(), Stuck> {
        const CONTEXTS: u64 = 1;
        const TRANSLATIONS: u64 = 2;
        const WAIT: u64 = 5;
        const WRITE_STATUS: u64 = 1 << 5;
        const FENCE: u64 = 1 << 6;
        const DRAIN_WRITES: u64 = 1 << 6;
        const DRAIN_READS: u64 = 1 << 7;

        let (how_much, domain, pages) = reach(what, caps);
        let scope = how_much << 4 | u64::from(domain) << 16;
        if what == What::Contexts {
            self.push(tables, CONTEXTS | scope, 0);
        } else {
            let mut low = TRANSLATIONS | scope;
            if caps.cap.write_draining() {
                low |= DRAIN_WRITES;
            }
            if caps.cap.read_draining() {
                low |= DRAIN_READS;
            }
            self.push(tables, low, pages);
        }
        self.ticket = self.ticket.wrapping_add(1);
        tables.write(self.status_hpa, 0, 0);
        let low = WAIT | WRITE_STATUS | FENCE | u64::from(self.ticket) << 32;
        self.push(tables, low, self.status_hpa);
        if !self.is_coherent {
            tables.write_back(self.page_hpa);
            tables.write_back(self.status_hpa);
        }
        regs.write64(regs::IQT, 16 * self.tail as u64);
        for _ in 0..PATIENCE {
            if tables.read(self.status_hpa, 0) as u32 == self.ticket {
                return Ok(());
            }
            if regs.read32(regs::FSTS) & crate::fault::QUEUE_ERROR != 0 {
                break;
            }
            regs.pause();
        }
        Err(Stuck(Command::Queue))
    }
}
