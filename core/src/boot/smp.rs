//! Starting the other CPUs. Each comes up on a page below 1 MiB that is put
//! back as it was, turns VMX on, and enters L1 in the wait-for-SIPI state: as
//! L1 would have found it.

use super::plan::Plan;
use crate::cannot_start;
use crate::cpu::percpu;
use crate::machine::machine;
use crate::mem::paging::{Access, AddressSpace, PageSize};
use crate::mem::{PAGE_BYTES, PagePool, pointer};
use crate::platform::apic::{self, Ipi};
use crate::platform::{mtrr, timer};
use crate::sync::BootCell;
use core::arch::global_asm;
use core::sync::atomic::Ordering;
use umbra_arch::Linear;

global_asm!(include_str!("ap.S"), options(att_syntax));

unsafe extern "C" {
    safe static ap_trampoline: u8;
    safe static ap_trampoline_end: u8;
    safe static ap_gdt_base: u8;
    safe static ap_far_32: u8;
    safe static ap_far_64: u8;
    safe static ap_cr3: u8;
    safe static ap_stack: u8;
    safe static ap_index: u8;
    safe static ap_entry: u8;
}

/// CR3 of all CPUs.
static CR3: BootCell<u64> = BootCell::new();

/// Between INIT and the first start-up IPI, and after each start-up IPI. SDM
/// "MP Initialization Protocol Algorithm".
const AFTER_INIT_MICROSECONDS: u64 = 10_000;
const AFTER_SIPI_MICROSECONDS: u64 = 200;
/// How long a CPU may take to get to L1.
const MAX_START_MICROSECONDS: u64 = 2_000_000;

/// Starts every CPU but this one; a machine where one does not come up is
/// refused, since L1 could not be kept from starting it itself.
pub fn start_others(pool: &mut PagePool, space: &AddressSpace, plan: &Plan) {
    CR3.set(space.cr3());
    if machine().cpu_count() == 1 {
        return;
    }
    let Some(page) = plan.trampoline else {
        cannot_start!("there is no free page below 1 MiB to start the other CPUs on");
    };
    let mut low = space.with_shared_upper_half(pool);
    let (first, size) = (Linear::new(0), PageSize::Medium);
    // SAFETY: in CR3 while another CPU runs the few instructions in the low page; no Rust
    // object is down there.
    unsafe { low.map(pool, first, 0, size.bytes(), size, Access::Execute) };
    let mut kept = [0; PAGE_BYTES as usize];
    // SAFETY: the page is RAM that nobody uses: `plan` found it free.
    let bytes = unsafe { core::slice::from_raw_parts_mut(pointer(page), kept.len()) };
    kept.copy_from_slice(bytes);
    for (index, &apic_id) in (0u32..).zip(&machine().acpi.apic_ids).skip(1) {
        fill(bytes, page, index, low.cr3());
        start(index, apic_id, (page / PAGE_BYTES) as u8);
    }
    bytes.copy_from_slice(&kept);
}

fn start(index: u32, apic_id: u32, page: u8) {
    let is_running = || percpu::shared(index).is_running.load(Ordering::Acquire);
    let send = |ipi| {
        if let Err(why) = apic::send(apic_id, ipi) {
            cannot_start!("no IPI reaches the CPU with APIC id {apic_id}: {why:?}");
        }
    };
    send(Ipi::Init);
    timer::wait(AFTER_INIT_MICROSECONDS);
    send(Ipi::StartUp(page));
    timer::wait(AFTER_SIPI_MICROSECONDS);
    if !is_running() {
        send(Ipi::StartUp(page));
    }
    let mut waited = 0;
    while !is_running() {
        if waited > MAX_START_MICROSECONDS {
            cannot_start!("the CPU with APIC id {apic_id} does not start");
        }
        timer::wait(AFTER_SIPI_MICROSECONDS);
        waited += AFTER_SIPI_MICROSECONDS;
    }
}

/// Puts the trampoline for CPU `index` into the page.
fn fill(bytes: &mut [u8], page: u64, index: u32, cr3: u64) {
    let start = &raw const ap_trampoline as u64;
    let length = (&raw const ap_trampoline_end as u64 - start) as usize;
    // SAFETY: the trampoline is that long, in the image's read-only part.
    let code = unsafe { core::slice::from_raw_parts(&raw const ap_trampoline, length) };
    bytes[..length].copy_from_slice(code);
    for address in [
        &raw const ap_gdt_base,
        &raw const ap_far_32,
        &raw const ap_far_64,
    ] {
        let at = (address as u64 - start) as usize;
        let word = &mut bytes[at..at + 4];
        let offset = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        // Below 1 MiB, so it fits.
        word.copy_from_slice(&(page as u32 + offset).to_le_bytes());
    }
    for (address, value) in [
        (&raw const ap_cr3, cr3),
        (&raw const ap_stack, percpu::host_rsp(index)),
        (&raw const ap_index, u64::from(index)),
        (&raw const ap_entry, umbra_ap as *const () as u64),
    ] {
        let at = (address as u64 - start) as usize;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// Rust begins here on every CPU but the first: 64-bit mode, tables with the
/// low 2 MiB besides, this CPU's own stack.
extern "C" fn umbra_ap(index: u64) -> ! {
    // SAFETY: these tables map the image, the stacks and the areas alike.
    unsafe { crate::arch::cr::set_cr3(*CR3.get()) };
    // SAFETY: the first CPU has created this area for this CPU.
    let cpu = unsafe { percpu::adopt(index as u32) };
    let mtrrs = mtrr::of_this_cpu();
    if mtrrs != cpu.mtrrs {
        // Not as on the first CPU: this one's ept01 follows its own. Nothing
        // has used it yet, so no INVEPT is owed.
        cpu.mtrrs = mtrrs;
        let _ = cpu.ept01.retype(&mut crate::mem::Tables, &cpu.mtrrs);
        cpu.ept01.invalidated(&mut crate::mem::Tables);
    }
    super::enter_l1(cpu, None)
}
