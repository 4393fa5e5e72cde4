//! The cases that `umbra-vmcs` ships with its rules, just inside and just outside of each, on the
//! machine.
//!
//! A case changes a made-up bench that holds what the known-good VMCS holds here; what it changed
//! there is changed here.

use core::fmt::{self, Display};

use rt::page::Page;
use rt::report;
use rt::vmx::vm::Mode;
use umbra_vmcs::Vmcs12;
use umbra_vmcs::controls::{Entry, Exit};
use umbra_vmcs::field::{self, ALL, Area};
use umbra_vmcs::rules::cases::{self, Bench, Case, Memory, Pages};
use umbra_vmcs::rules::{L1Facts, Rule};

use crate::errata;
use crate::lab::Lab;

/// The activity state that nothing here would end.
const WAIT_FOR_SIPI: u64 = 3;

/// A count of an MSR list whose bytes take more than 32 bits.
const ENDLESS: u64 = 1 << 28;

/// Why a case is not run on the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It changes the CPU, or L1's mode.
    OtherCpu,
    /// VM entry accepts it, and L1 would not live on after the exit, or never see one.
    Fatal,
    /// An MSR list whose bytes take more than 32 bits: Bochs 3.0 accepts it, and goes through it.
    Endless,
}

/// Pages of this program for what a case points at.
struct Ground {
    any: Page,
    virtual_apic: Page,
    link: Page,
    pdpt: Page,
}

/// How many cases were left out for each reason.
#[derive(Default)]
struct Count {
    other_cpu: u32,
    fatal: u32,
    endless: u32,
}

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "left out: {} of another CPU, {} that L1 would not outlive, {} that Bochs does not end",
            self.other_cpu, self.fatal, self.endless
        )
    }
}

/// Runs the group.
pub fn run(lab: &mut Lab) {
    let ground = Ground {
        any: Page::alloc(1),
        virtual_apic: Page::alloc(1),
        link: lab.vmx.new_vmcs(),
        pdpt: Page::alloc(1),
    };
    if !lab.begin("cases", Mode::Long, false) {
        return;
    }
    let mut count = Count::default();
    for case in cases::all() {
        match try_case(lab, &ground, case) {
            Ok(()) => {}
            Err(Left::OtherCpu) => count.other_cpu += 1,
            Err(Left::Fatal) => count.fatal += 1,
            Err(Left::Endless) => count.endless += 1,
        }
    }
    lab.end();
    report::group(format_args!("cases {count}"));
}

fn try_case(lab: &mut Lab, ground: &Ground, case: &Case) -> Result<(), Left> {
    let before = bench(lab, ground);
    let mut after = before.clone();
    (case.apply)(&mut after);
    if (after.caps, after.cpu, after.l1) != (before.caps, before.cpu, before.l1) {
        return Err(Left::OtherCpu);
    }
    let counts = [
        field::VM_EXIT_MSR_STORE_COUNT,
        field::VM_EXIT_MSR_LOAD_COUNT,
        field::VM_ENTRY_MSR_LOAD_COUNT,
    ];
    if counts.iter().any(|count| after.get(*count) >= ENDLESS) {
        return Err(Left::Endless);
    }
    let pages = [
        &ground.any,
        &ground.virtual_apic,
        &ground.link,
        &ground.pdpt,
    ];
    // What stood in memory comes back in the opposite order.
    let mut undo: [Option<(&Page, u64, u32)>; 16] = [None; 16];
    // The revision in the current VMCS is right already, and memory there is the CPU's.
    let words = after.memory.words();
    let words = words.filter(|(address, _)| *address != before.l1.current_vmcs);
    for ((address, value), undo) in words.zip(&mut undo) {
        let page = pages
            .into_iter()
            .find(|page| address & !0xfff == page.address())
            .expect("a case writes to its pages");
        let offset = address & 0xfff;
        *undo = Some((page, offset, page.read(offset)));
        page.write(offset, value);
    }
    for field in ALL {
        if after.get(field) != lab.get(field) {
            lab.set(field, after.get(field));
        }
    }
    lab.vm.keeps_host_rip = after.get(field::HOST_RIP) != before.get(field::HOST_RIP);
    let broken = lab.first_broken();
    let is_tried = broken.is_some() || is_outlived(&before, &after);
    lab.is_erratum = errata::has_case(case.rule, case.name);
    if is_tried {
        lab.run(format_args!(
            "{} {}, {}",
            case.rule,
            AsTold(case, broken),
            case.name
        ));
    } else {
        lab.take_back();
    }
    for (page, offset, value) in undo.into_iter().rev().flatten() {
        page.write(offset, value);
    }
    if is_tried { Ok(()) } else { Err(Left::Fatal) }
}

/// Whether the rules say of a case on this machine what the table says of it on the made-up CPU:
/// that it breaks its rule first, or none.
struct AsTold<'a>(&'a Case, Option<&'a Rule>);

impl Display for AsTold<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(case, broken) = self;
        match broken {
            None if case.breaks => f.write_str("(kept here)"),
            None => f.write_str("kept"),
            Some(rule) if case.breaks && rule.id == case.rule => f.write_str("broken"),
            Some(rule) => write!(f, "({} here)", rule.id),
        }
    }
}

/// The made-up bench, with what the machine and the known-good VMCS have.
fn bench(lab: &Lab, ground: &Ground) -> Bench {
    let mut vmcs = Vmcs12::new();
    for field in ALL {
        vmcs.set(field, lab.get(field));
    }
    let mut bench = Bench {
        vmcs,
        caps: lab.caps,
        cpu: lab.facts(),
        l1: L1Facts {
            ia32e_mode: true,
            current_vmcs: lab.vm.vmcs.address(),
            ..L1Facts::default()
        },
        pages: Pages {
            any: ground.any.address(),
            virtual_apic: ground.virtual_apic.address(),
            link: ground.link.address(),
            pdpt: ground.pdpt.address(),
            eptp: lab.vm.ept.as_ref().map_or(0, |ept| ept.pointer()),
        },
        memory: Memory::default(),
    };
    // EFER follows "IA-32e mode guest", which cases change, unless one says otherwise.
    bench.clear(field::VM_ENTRY_CONTROLS, Entry::LOAD_EFER.bits().into());
    bench.set(field::GUEST_IA32_EFER, 0);
    bench
}

/// Whether L1 goes on after a VM entry that accepts the case: no state of the host, and nothing
/// that the exit does to L1, differs; and there is an exit.
fn is_outlived(before: &Bench, after: &Bench) -> bool {
    let is_host_kept = ALL
        .into_iter()
        .filter(|field| field.area() == Area::Host)
        .all(|field| after.get(field) == before.get(field));
    let loads = Exit::LOAD_PAT
        | Exit::LOAD_EFER
        | Exit::LOAD_PERF_GLOBAL_CTRL
        | Exit::LOAD_CET_STATE
        | Exit::LOAD_PKRS
        | Exit::HOST_ADDRESS_SPACE_SIZE
        | Exit::ACTIVATE_SECONDARY_CONTROLS;
    let changed =
        after.get(field::PRIMARY_VM_EXIT_CONTROLS) ^ before.get(field::PRIMARY_VM_EXIT_CONTROLS);
    is_host_kept
        && changed & u64::from(loads.bits()) == 0
        && after.get(field::VM_EXIT_MSR_STORE_COUNT) == 0
        && after.get(field::VM_EXIT_MSR_LOAD_COUNT) == 0
        && after.get(field::GUEST_ACTIVITY_STATE) != WAIT_FOR_SIPI
}
