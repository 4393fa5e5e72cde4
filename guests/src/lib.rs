//! Puts an L1 into its start state: Linux, multiboot, multiboot2, boot sector.
//!
//! Everything here is pure: physical memory is reached through the
//! [`PhysMemory`] trait alone, and what comes out is a [`StartState`], the
//! registers that the CPU has to hold when L1 executes its first instruction.
//!
//! The way through:
//!
//! 1. [`BootInfo`] reads what the boot loader told Umbra.
//! 2. [`MemoryMap`] takes its memory map, overlapping and unsorted as it may
//!    be, and Umbra reserves its own memory in it.
//! 3. [`start`] finds out what the first module is ([`identify`]), moves what
//!    is in the way, loads the kernel, writes what its boot protocol hands
//!    over, and gives the start state.
//! 4. Before that, [`int15`] installs the block that answers for the BIOS when
//!    an L1 asks for the memory map in real mode.
//!
//! Nothing read from a kernel file, a module or the boot loader's information
//! can make this crate panic, overflow or loop without end; each refusal is
//! one line that says what was wrong.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod boot_sector;
mod bytes;
mod elf_image;
mod emit;
mod error;
mod handover;
mod linux;
mod load;
mod memmap;
mod module;
mod multiboot;
mod multiboot1;
mod multiboot2;
mod phys;
mod place;
mod search;
mod source;
mod space;
mod state;

pub mod bootinfo;
pub mod efi;
pub mod int15;
pub mod kernel;
pub mod rsdp;

pub use bootinfo::BootInfo;
pub use error::Error;
pub use handover::Handover;
pub use kernel::{KernelKind, identify};
pub use load::start;
pub use memmap::{Entry, Kind, MAX_ENTRIES, MemoryMap, TooManyEntries};
pub use module::{MAX_MODULES, ModuleRef};
pub use phys::{PhysMemory, Region, Unreachable};
pub use state::{GeneralRegisters, Segment, StartState, TableRegister};
