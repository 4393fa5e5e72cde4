//! A unit, and how it is switched on. VT-d "Software Programming Considerations", "Managing
//! Remapping Structures", "DMA Protection during ... Setup" is the stopgap of
//! [`Unit::protect`].

use crate::caps::{Caps, Unsupported};
use crate::command::{Command, Stuck};
use crate::context::Contexts;
use crate::fault::{self, Fault};
use crate::invalidate::{self, PATIENCE, Queue, What};
use crate::mem::Tables;
use crate::ranges::Range;
use crate::regs::{self, Registers};

/// A unit with its registers.
#[derive(Debug)]
pub struct Unit<R> {
    regs: R,
    caps: Caps,
    queue: Option<Queue>,
}

impl<R: Registers> Unit<R> {
    /// The unit behind `regs`. Nothing of it is changed.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub fn open(mut regs: R, register_bytes: u64) -> Result<Self, Unsupported> {
        let caps = Caps::read(&mut regs, register_bytes)?;
        Ok(Self {
            regs,
            caps,
            queue: None,
        })
    }

    /// What it can do.
    pub const fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Whether it translates.
    pub fn is_translating(&mut self) -> bool {
        self.regs.read32(regs::GSTS) & regs::GLOBAL_TRANSLATION != 0
    }

    /// Writes `GCMD_REG` with the states of `GSTS_REG` but for `bit`, which
    /// becomes `value`, and waits until `GSTS_REG` has it so.
    fn command(&mut self, bit: u32, value: bool, what: Command) -> Result<(), Stuck> {
        let states = self.regs.read32(regs::GSTS) & regs::GLOBAL_STATES & !bit;
        let wanted = if value { bit } else { 0 };
        self.regs.write32(regs::GCMD, states | wanted);
        // A write-buffer flush reads as 0 when it is done, all others as written.
        let done = if bit == regs::GLOBAL_WRITE_BUFFER {
            0
        } else {
            wanted
        };
        self.wait(regs::GSTS, bit, done, what)
    }

    fn wait(&mut self, offset: u32, bit: u32, value: u32, what: Command) -> Result<(), Stuck> {
        for _ in 0..PATIENCE {
            if self.regs.read32(offset) & bit == value {
                return Ok(());
            }
            self.regs.pause();
        }
        Err(Stuck(what))
    }

    fn flush_write_buffers(&mut self) -> Result<(), Stuck> {
        if !self.caps.cap.needs_write_buffer_flush() {
            return Ok(());
        }
        self.command(regs::GLOBAL_WRITE_BUFFER, true, Command::FlushWriteBuffers)
    }

    /// Keeps devices out of `hidden` at once, by the protected-memory regions,
    /// until there are tables. Gives whether the unit could: false where it
    /// has no such region at that place. More may be protected than asked for,
    /// since the regions are coarse.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn protect(&mut self, hidden: Range) -> Result<bool, Stuck> {
        const FOUR_GIB: u64 = 1 << 32;

        let last = hidden.end_hpa - 1;
        if last < FOUR_GIB && self.caps.cap.low_region() {
            self.switch_protection(false)?;
            // Which bits of an address count is told by what can be written.
            self.regs.write32(regs::PLMBASE, u32::MAX);
            let counts = self.regs.read32(regs::PLMBASE);
            self.regs
                .write32(regs::PLMBASE, hidden.start_hpa as u32 & counts);
            self.regs.write32(regs::PLMLIMIT, last as u32 & counts);
            // The region above 4 GiB is switched by the same bit: a limit
            // below the base keeps it empty.
            if self.caps.cap.high_region() {
                self.regs.write64(regs::PHMBASE, u64::MAX);
                self.regs.write64(regs::PHMLIMIT, 0);
            }
        } else if hidden.start_hpa >= FOUR_GIB && self.caps.cap.high_region() {
            self.switch_protection(false)?;
            self.regs.write64(regs::PHMBASE, u64::MAX);
            let counts = self.regs.read64(regs::PHMBASE);
            self.regs.write64(regs::PHMBASE, hidden.start_hpa & counts);
            self.regs.write64(regs::PHMLIMIT, last & counts);
            if self.caps.cap.low_region() {
                self.regs.write32(regs::PLMBASE, u32::MAX);
                self.regs.write32(regs::PLMLIMIT, 0);
            }
        } else {
            return Ok(false);
        }
        self.switch_protection(true)?;
        Ok(true)
    }

    /// Ends what [`protect`](Self::protect) began.
    fn switch_protection(&mut self, on: bool) -> Result<(), Stuck> {
        if !self.caps.cap.low_region() && !self.caps.cap.high_region() {
            return Ok(());
        }
        let (write, read) = match on {
            true => (regs::PMEN_ENABLE, regs::PMEN_STATUS),
            false => (0, 0),
        };
        self.regs.write32(regs::PMEN, write);
        self.wait(regs::PMEN, regs::PMEN_STATUS, read, Command::ProtectMemory)
    }

    /// Has every device of the unit go through `contexts` from now on, whatever
    /// the firmware had set up, and ends the protection of memory that the
    /// tables now give.
    ///
    /// # Errors
    /// [`Stuck`]: the unit may be in any state; what [`protect`](Self::protect)
    /// protected still is.
    pub fn confine(&mut self, tables: &mut impl Tables, contexts: &Contexts) -> Result<(), Stuck> {
        // The fault interrupt stays masked: faults are looked for.
        self.regs.write32(regs::FECTL, 1 << 31);
        let status = self.regs.read32(regs::GSTS);
        if status & regs::GLOBAL_INTERRUPT_REMAPPING != 0 {
            // L1 does not see the unit, so its devices' requests are in the old
            // format, which a unit that remaps would block.
            self.command(
                regs::GLOBAL_INTERRUPT_REMAPPING,
                false,
                Command::StopRemappingInterrupts,
            )?;
        }
        if status & regs::GLOBAL_QUEUE != 0 {
            self.command(regs::GLOBAL_QUEUE, false, Command::SwitchQueue)?;
        }
        if self.caps.ecap.queue() {
            self.queue = Queue::new(tables, &self.caps);
        }
        if let Some(queue) = &self.queue {
            // The head is 0 again once the queue was off.
            self.regs.write64(regs::IQT, 0);
            self.regs.write64(regs::IQA, queue.address());
            self.command(regs::GLOBAL_QUEUE, true, Command::SwitchQueue)?;
        }
        self.flush_write_buffers()?;
        self.regs.write64(regs::RTADDR, contexts.root_hpa());
        self.command(regs::GLOBAL_ROOT_TABLE, true, Command::TakeRootTable)?;
        self.invalidate(tables, What::Contexts)?;
        self.invalidate(tables, What::Everything)?;
        self.command(regs::GLOBAL_TRANSLATION, true, Command::Translate)?;
        self.switch_protection(false)
    }

    /// Has the unit forget what it has cached.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn invalidate(&mut self, tables: &mut impl Tables, what: What) -> Result<(), Stuck> {
        self.flush_write_buffers()?;
        match &mut self.queue {
            Some(queue) => queue.invalidate(&mut self.regs, tables, &self.caps, what),
            None => invalidate::by_registers(&mut self.regs, &self.caps, what),
        }
    }

    /// Takes the unit's fault records; gives whether some were lost.
    pub fn faults(&mut self, seen: impl FnMut(Fault)) -> bool {
        fault::drain(&mut self.regs, &self.caps, seen)
    }
}
