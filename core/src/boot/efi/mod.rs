//! `umbra.efi`: below a firmware whose boot services are alive. See
//! `docs/boot.md`.
//!
//! The firmware starts the image as an application. It reads its configuration
//! file, loads what is to start next, takes memory from the firmware, and makes
//! the machine as it stands L1: the firmware goes on, with boot services, one
//! level up, and starts what was loaded.

mod firmware;
mod state;

use super::plan::{self, Image, Plan};
use super::{enter_l1, settle_machine, take_machine};
use crate::cannot_start;
use crate::machine::machine;
use crate::mem::{L1Physical, LOW_BYTES, PAGE_BYTES};
use crate::platform::mtrr;
use crate::sync::BootCell;
use core::arch::global_asm;
use core::fmt::{self, Write};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use firmware::Firmware;
use state::Begin;
use uefi_raw::table::boot::MemoryType;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Handle, Status};
use umbra_core::{efi_config, options};
use umbra_guests::{Region, StartState};

global_asm!(include_str!("entry.S"), options(att_syntax));

unsafe extern "C" {
    safe static umbra_efi_l1: u8;
    static efi_frame: u64;
    static efi_firmware_cr3: u64;
    static efi_loaded_at: u64;
    fn umbra_efi_refuse(status: usize) -> !;
    fn umbra_efi_to_boot_stack() -> !;
}

/// The system table, while the firmware can be returned to.
static TABLE: AtomicPtr<SystemTable> = AtomicPtr::new(null_mut());

/// What the second half needs, once nothing of the firmware's is in use.
struct Launch {
    plan: Plan,
    state: StartState,
}

static LAUNCH: BootCell<Launch> = BootCell::new();

/// Rust begins here: on the firmware's stack, with its memory mapped one to one,
/// the image where it is linked, and `PHYSMAP` over the low 4 GiB.
#[unsafe(no_mangle)]
extern "C" fn umbra_efi_main(image: Handle, table: *mut SystemTable) -> ! {
    TABLE.store(table, Ordering::Release);
    crate::refusal::also_say(refuse);
    crate::console::init();
    // SAFETY: called by the entry code alone, with what the firmware gave it.
    let firmware = unsafe { Firmware::new(image, table) };
    let asked = |error: firmware::Refused| -> ! { cannot_start!("{error}") };
    let file = firmware
        .read_beside("umbra.conf")
        .unwrap_or_else(|e| asked(e));
    let config = match efi_config::parse(file) {
        Ok(config) => config,
        Err(error) => cannot_start!("{error}"),
    };
    let options = match options::parse(config.options.as_bytes()) {
        Ok(options) => options,
        Err(word) => cannot_start!("{word}"),
    };
    if table as u64 >= LOW_BYTES {
        cannot_start!("the firmware's system table lies above 4 GiB");
    }
    let rsdp = umbra_guests::efi::rsdp(&L1Physical::early(), table as u64);
    let ram_end = firmware.ram_end().unwrap_or_else(|e| asked(e));
    settle_machine(options, rsdp, ram_end);
    let next = firmware
        .load(config.next, config.arguments)
        .unwrap_or_else(|e| asked(e));

    let mtrrs = mtrr::of_this_cpu();
    let mapped_bytes = plan::mapped_bytes();
    let bytes = plan::block_bytes(&Image::own(), mapped_bytes, &mtrrs);
    let take = |kind, bytes, align, below| {
        firmware
            .take(kind, bytes, align, below)
            .unwrap_or_else(|e| asked(e))
    };
    let block = take(MemoryType::RESERVED, bytes, plan::ALIGN, LOW_BYTES);
    let trampoline = (machine().cpu_count() > 1).then(|| {
        take(
            MemoryType::LOADER_DATA,
            PAGE_BYTES,
            PAGE_BYTES,
            plan::LEGACY_END,
        )
    });
    // SAFETY: the entry code has set it, and only one CPU runs.
    let loaded_at = unsafe { efi_loaded_at };
    let begin = Begin {
        rip: loaded_at + (&raw const umbra_efi_l1 as u64 - Image::own().start),
        // SAFETY: as above.
        rsp: unsafe { efi_frame },
        // SAFETY: as above.
        cr3: unsafe { efi_firmware_cr3 },
        rax: firmware.start_image(),
        rcx: next as u64,
    };
    LAUNCH.set(Launch {
        plan: Plan {
            block: Region::new(block, bytes),
            mapped_bytes,
            trampoline,
        },
        state: state::capture(&begin),
    });
    // From here on there is no way back to the firmware but as L1.
    TABLE.store(null_mut(), Ordering::Release);
    // SAFETY: the early tables are in use, and this frame is left for good.
    unsafe { umbra_efi_to_boot_stack() }
}

/// On the boot stack, interrupts off, with segments of the image's own.
#[unsafe(no_mangle)]
extern "C" fn umbra_efi_launch() -> ! {
    let launch = LAUNCH.get();
    super::enable_no_execute();
    let cpu = take_machine(&launch.plan);
    enter_l1(cpu, Some(&launch.state))
}

/// A line for the firmware's console: UCS-2 on the stack.
struct Line(heapless::Vec<u16, 240>);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // What does not fit is cut; three are left for the line's end.
            if self.0.len() < self.0.capacity() - 3 {
                let _ = self.0.push(u16::from(byte));
            }
        }
        Ok(())
    }
}

/// While the firmware can be returned to: shows the line on its console and
/// returns to it with the status "unsupported". Otherwise does nothing.
fn refuse(why: fmt::Arguments<'_>) {
    let table = TABLE.swap(null_mut(), Ordering::AcqRel);
    if table.is_null() {
        return;
    }
    let mut line = Line(heapless::Vec::new());
    let _ = write!(line, "umbra: cannot start: {why}");
    let _ = line.0.extend_from_slice(&[13, 10, 0]);
    // SAFETY: the system table, with boot services alive.
    let out = unsafe { (*table).stdout };
    if !out.is_null() {
        // SAFETY: the firmware's own console.
        let output_string = unsafe { (*out).output_string };
        // SAFETY: a string that ends with 0, on the firmware's stack.
        let _ = unsafe { output_string(out, line.0.as_ptr()) };
    }
    // SAFETY: this is on the firmware's stack, above the entry code's frame.
    unsafe { umbra_efi_refuse(Status::UNSUPPORTED.0) }
}
