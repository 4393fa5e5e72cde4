//! From the boot loader to L1. See `docs/boot.md`.

mod efi;
mod handover;
mod loader_info;
mod plan;
mod relocate;
mod screen;
mod smp;

use self::plan::Plan;
use crate::arch::{cpuid, msr};
use crate::cpu::percpu::{self, Cpu};
use crate::l1::init_sipi;
use crate::machine::{Machine, machine};
use crate::mem::L1Physical;
use crate::platform::{iommu, mtrr, probe, smram};
use crate::vmcs::vmcs01;
use crate::{cannot_start, console, exception, machine as machine_facts, mem, say};
use core::arch::global_asm;
use umbra_arch::cpuid::{Leaf1Ecx, Leaf1Edx};
use umbra_arch::{Cr4, Efer};
use umbra_core::cpuid::MAX_PHYSICAL_BITS;
use umbra_core::options::Options;
use umbra_core::{acpi, acpi_sleep, options};
use umbra_ept::caps::Caps;
use umbra_guests::{BootInfo, Kind, MemoryMap, StartState};

global_asm!(include_str!("entry.S"), options(att_syntax));

/// Rust begins here: 64-bit mode, early tables, boot stack, at the place where
/// the boot loader put the image.
#[unsafe(no_mangle)]
extern "C" fn umbra_boot(magic: u32, info_address: u64) -> ! {
    console::init();
    let info = loader_info::copy(magic, info_address);
    screen::use_for_refusals(&info);
    let options = match options::parse(info.command_line()) {
        Ok(options) => options,
        Err(word) => cannot_start!("{word}"),
    };
    let map = match info.memory_map() {
        Ok(map) => map,
        Err(error) => cannot_start!("{error}"),
    };
    let early = L1Physical::early();
    let rsdp = match info.efi() {
        None => umbra_guests::rsdp::find(&early),
        Some(efi) => umbra_guests::efi::rsdp(&early, efi.system_table),
    };
    settle_machine(options, rsdp, ram_end(&map));
    enable_no_execute();
    let mtrrs = mtrr::of_this_cpu();
    let plan = plan::make(&map, &info, info_address, &mtrrs);
    let cpu = take_machine(&plan);
    let state = handover::load_l1(&map, &info, rsdp);
    enter_l1(cpu, Some(&state))
}

/// Finds out what the machine is, or stops with a line where it lacks something.
fn settle_machine(options: Options, rsdp: Option<u64>, ram_end: u64) {
    let (vmx, feature_control) = probe::require_features(&options);
    let physical_address_bits = cpuid::physical_address_bits().min(MAX_PHYSICAL_BITS);
    machine_facts::set(Machine {
        options,
        vmx,
        ept: Caps::from_msr(vmx.ept_vpid, physical_address_bits as u8),
        physical_address_bits,
        feature_control,
        acpi: read_acpi(rsdp),
        ram_end,
        has_enhanced_ibrs: probe::has_enhanced_ibrs(),
        has_hypervisor: Leaf1Ecx::HYPERVISOR.is_in(cpuid::cpuid(1, 0).ecx),
        host_cr4: host_cr4(),
        cpuid_most: [0, 0x8000_0000].map(|base| cpuid::cpuid(base, 0).eax),
    });
    if machine().options.trace.is_some() {
        crate::vmentry::trace_exits();
    }
    iommu::find(&mtrr::of_this_cpu());
}

/// Moves to the plan's block and takes every CPU; gives this one's data.
fn take_machine(plan: &Plan) -> &'static mut Cpu {
    iommu::protect(plan.block);
    let (mut pool, mut space) = relocate::move_image(plan);
    // From here on at the top of RAM; the old place is L1's.
    for (index, &apic_id) in (0u32..).zip(&machine().acpi.apic_ids) {
        percpu::create(&mut pool, &mut space, index, apic_id);
    }
    exception::take();
    // SAFETY: the area of CPU 0 was created just now; this is CPU 0.
    let cpu = unsafe { percpu::adopt(0) };
    say!(
        "version {}: {} CPU{}, {} KiB at {:#x}",
        env!("CARGO_PKG_VERSION"),
        machine().cpu_count(),
        if machine().cpu_count() == 1 { "" } else { "s" },
        mem::layout().hidden_bytes >> 10,
        mem::layout().hidden_start
    );
    iommu::confine(&mut pool);
    smram::lock();
    if machine().options.show_hidden {
        crate::l1::cpuid::show_hidden();
        crate::platform::msr_policy::show_hidden();
    }
    hide_s3();
    crate::hypercall::claim();
    smp::start_others(&mut pool, &space, plan);
    cpu
}

/// Turns VMX on and enters L1 in the state given; without one, in the
/// wait-for-SIPI state.
fn enter_l1(cpu: &mut Cpu, state: Option<&StartState>) -> ! {
    crate::vmx_on::enter_vmx_operation(cpu);
    vmcs01::make(cpu);
    match state {
        Some(state) => {
            vmcs01::write_start_state(cpu, state);
            crate::stop::will_run(cpu.index);
        }
        None => init_sipi::wait_for_sipi(cpu),
    }
    crate::nested::set_up(cpu);
    crate::hypapp::start(cpu);
    crate::run::first_entry(cpu)
}

/// The tables, with this CPU first among those listed.
fn read_acpi(rsdp: Option<u64>) -> acpi::Machine {
    let mut found = match rsdp {
        None => acpi::Machine::default(),
        Some(at) => match acpi::read(&L1Physical::early(), at) {
            Ok(found) => found,
            Err(error) => cannot_start!("{error}"),
        },
    };
    let own = own_apic_id();
    match found.apic_ids.iter().position(|&id| id == own) {
        Some(at) => found.apic_ids.swap(0, at),
        None => {
            // Without a MADT there is one CPU. With one that does not list
            // this CPU the others cannot be trusted either.
            found.apic_ids.clear();
            let _ = found.apic_ids.push(own);
        }
    }
    found
}

/// L1 is not shown the sleep state that Umbra would not survive.
fn hide_s3() {
    // A damaged DSDT is L1's to complain about: without one it knows no sleep state.
    let dsdt = machine().acpi.dsdt;
    if dsdt != 0 && acpi_sleep::hide_s3(&mut L1Physical::new(), dsdt) == Ok(true) {
        say!("ACPI S3 (suspend to RAM) is hidden from L1");
    }
}

/// The local APIC id of the CPU that runs this.
fn own_apic_id() -> u32 {
    let topology = cpuid::cpuid_or_zero(0xb, 0);
    if topology.ebx != 0 {
        return topology.edx;
    }
    cpuid::cpuid(1, 0).ebx >> 24
}

/// The end of the highest RAM, in bytes; ACPI's memory counts.
fn ram_end(map: &MemoryMap) -> u64 {
    map.entries()
        .iter()
        .filter(|e| matches!(e.kind, Kind::USABLE | Kind::ACPI | Kind::ACPI_NVS))
        .map(|e| e.last.saturating_add(1))
        .max()
        .unwrap_or(0)
}

/// CR4 once Rust runs without a firmware, as the entry code sets it.
const BOOT_CR4: Cr4 = Cr4::PAE.union(Cr4::OSFXSR).union(Cr4::OSXMMEXCPT);

/// CR4 while L0 runs: 64-bit mode, SSE, VMX, and XSETBV and machine checks, which
/// are a shutdown otherwise, where the CPU has them.
fn host_cr4() -> u64 {
    let leaf_1 = cpuid::cpuid(1, 0);
    let mut cr4 = BOOT_CR4.union(Cr4::VMXE);
    cr4.set(Cr4::OSXSAVE, Leaf1Ecx::XSAVE.is_in(leaf_1.ecx));
    cr4.set(Cr4::MCE, Leaf1Edx::MCE.is_in(leaf_1.edx));
    cr4.bits()
}

/// Turns on execute-disable bits in page tables; `probe` found that the CPU
/// has them.
fn enable_no_execute() {
    let efer = msr::read(msr::IA32_EFER);
    // SAFETY: no table in use has bit 63 set in an entry.
    unsafe { msr::write(msr::IA32_EFER, efer | Efer::NXE.bits()) };
}

/// Stops with a line that begins `cannot start: the memory map ...`.
fn too_many_entries(_: umbra_guests::TooManyEntries) -> ! {
    cannot_start!(
        "the memory map has more than {} entries once Umbra's own memory is in it",
        umbra_guests::MAX_ENTRIES
    )
}

/// The regions in which the boot loader put something.
fn loader_regions<'a>(
    info: &BootInfo<'a>,
    info_address: u64,
    info_bytes: u64,
) -> impl Iterator<Item = umbra_guests::Region> + use<'a> {
    let own = umbra_guests::Region::new(info_address, info_bytes);
    info.modules().map(|module| module.region).chain([own])
}
