//! The three MSR lists at every place, of every length, across the border of hidden memory.
//!
//! What an exit list says is a VMX abort if it is wrong, so those lie in memory alone.

use rt::cpu;
use rt::page::Page;
use rt::report;
use rt::vmx::insn::write;
use umbra_vmcs::field::{self, Field};

use crate::lab::{Lab, reason};
use crate::place::{Kind, Place};

code64! {
    fn list_code = "vmcall";
}

/// IA32_SYSENTER_CS: VM exit loads it anyway.
const HARMLESS: u64 = 0x174;

const STORE: (Field, Field) = (
    field::VM_EXIT_MSR_STORE_ADDRESS,
    field::VM_EXIT_MSR_STORE_COUNT,
);
const LOAD: (Field, Field) = (
    field::VM_EXIT_MSR_LOAD_ADDRESS,
    field::VM_EXIT_MSR_LOAD_COUNT,
);
const ENTRY: (Field, Field) = (
    field::VM_ENTRY_MSR_LOAD_ADDRESS,
    field::VM_ENTRY_MSR_LOAD_COUNT,
);

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for place in lab.places() {
        if place.is_memory() {
            in_memory(lab, place);
        }
        entry_list(lab, place);
    }
    across_the_border(lab);
    overlapping(lab);
    costly(lab);
}

/// IA32_MTRR_DEF_TYPE, whose every change may have a hypervisor below change what it maps: a list of
/// them costs little more than one, and what the last says counts.
fn costly(lab: &mut Lab) {
    const DEF_TYPE: u32 = 0x2ff;
    /// TSC ticks for an entry of the list, beyond what one change costs.
    const TICKS_EACH: u64 = 5_000;

    let default = cpu::rdmsr(DEF_TYPE);
    let list = Page::alloc(2);
    for list_fields in [ENTRY, LOAD] {
        let mut ticks = [0; 2];
        for (ticks, count) in ticks.iter_mut().zip([1, 512]) {
            for entry in 0..count {
                let kind: u64 = if entry % 2 == 0 { 0 } else { 6 };
                list.write(entry * 16, u64::from(DEF_TYPE));
                list.write(entry * 16 + 8, 0xc00u64 | kind);
            }
            set(lab, list_fields, list.address(), count);
            let before = cpu::tsc();
            lab.expect(format_args!("{count} MTRRs"), &[reason::VMCALL]);
            *ticks = cpu::tsc() - before;
            let last = if count % 2 == 1 { 0xc00 } else { 0xc06 };
            report::check(
                format_args!("the last counts"),
                cpu::rdmsr(DEF_TYPE) == last,
            );
            // SAFETY: what it was.
            unsafe { cpu::wrmsr(DEF_TYPE, default) };
        }
        let what = format_args!("512 MTRRs take {ticks:?} ticks");
        report::check(what, ticks[1] < ticks[0] + 512 * TICKS_EACH);
    }
}

fn set(lab: &mut Lab, list: (Field, Field), address: u64, count: u64) {
    lab.prepare(&list_code());
    write(list.0, address);
    write(list.1, count);
}

fn in_memory(lab: &mut Lab, place: Place) {
    let name = place.name;
    for count in [1, 2, 256] {
        for offset in (0..4096).step_by(16) {
            place.poke(offset, HARMLESS);
            place.poke(offset + 8, u64::MAX);
        }
        set(lab, STORE, place.address, count);
        lab.expect(format_args!("store {name} {count}"), &[reason::VMCALL]);
        // The value is what L2 has: 0.
        let last = place.peek(16 * (count - 1) + 8);
        report::check(format_args!("stored at {name}: {last:#x}"), last == 0);
        set(lab, LOAD, place.address, count);
        lab.expect(format_args!("load {name} {count}"), &[reason::VMCALL]);
    }
}

fn entry_list(lab: &mut Lab, place: Place) {
    let name = place.name;
    for (msr, value) in [
        (HARMLESS, 0),
        (0xffff_ffff, 0),
        (0x1b, place.address | 0x900),
        (0xc000_0080, u64::MAX),
        (0x277, u64::MAX),
        (0x1d9, u64::MAX),
        (0xc000_0100, place.address),
        (0x800, 0),
        (0x79, place.address),
        (0x9b, u64::MAX),
        (0x480, 0),
        (0x3a, 0),
    ] {
        if place.is_memory() {
            place.fill(0);
            place.poke(0, msr);
            place.poke(8, value);
        } else if msr != HARMLESS {
            continue;
        }
        // The local APIC stays where it is.
        if msr == 0x1b && place.kind != Kind::Hidden {
            continue;
        }
        let base = cpu::rdmsr(0x1b);
        set(lab, ENTRY, place.address, 1);
        let what = format_args!("entry {name} {msr:#x}");
        lab.expect(what, &[reason::VMCALL, reason::ENTRY_MSR]);
        let is_kept = cpu::rdmsr(0x1b) == base;
        report::check(format_args!("the local APIC stays, {name}"), is_kept);
    }
    for count in [2, 255, 512, 4096, 0x7fff_ffff, 0xffff_ffff] {
        if place.is_memory() {
            for offset in (0..4096).step_by(16) {
                place.poke(offset, HARMLESS);
                place.poke(offset + 8, 0);
            }
        }
        // A list of this program's own RAM goes on in what lies behind it, whatever it says.
        if place.kind == Kind::Ram && count > 256 {
            continue;
        }
        set(lab, ENTRY, place.address, count);
        lab.run(format_args!("entry {name} {count}"));
    }
}

/// A list whose first entry is in L1's own memory and whose second is hidden.
fn across_the_border(lab: &mut Lab) {
    let Some(hidden) = lab.hidden.clone() else {
        return;
    };
    let below = Place {
        name: "below",
        address: hidden.start - 4096,
        kind: Kind::Ram,
    };
    let first = Place {
        name: "first",
        address: hidden.start,
        kind: Kind::Hidden,
    };
    let kept = [below.peek(4080), below.peek(4088)];
    for (place, offset) in [(below, 4080), (first, 0)] {
        place.poke(offset, HARMLESS);
        place.poke(offset + 8, u64::MAX);
    }
    for list in [STORE, LOAD, ENTRY] {
        set(lab, list, hidden.start - 16, 2);
        let what = format_args!("a list across the border");
        lab.expect(what, &[reason::VMCALL]);
        let is_right = below.peek(4088) == 0 && first.peek(8) == 0;
        report::check(format_args!("both entries stored"), is_right);
    }
    below.poke(4080, kept[0]);
    below.poke(4088, kept[1]);
    first.fill(0);
}

/// One list for all three, and a store list whose values become the numbers of a load list.
fn overlapping(lab: &mut Lab) {
    for place in lab.places().filter(Place::is_memory) {
        place.fill(0);
        for offset in (0..64).step_by(16) {
            place.poke(offset, HARMLESS);
        }
        lab.prepare(&list_code());
        for (address, count) in [STORE, LOAD, ENTRY] {
            write(address, place.address);
            write(count, 4);
        }
        let what = format_args!("three lists in one, {}", place.name);
        lab.expect(what, &[reason::VMCALL]);
    }
}
