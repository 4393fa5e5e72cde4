//! Paging structures at every place: L2's with and without EPT, L1's own, and those of L1's host state.

use rt::cpu;
use rt::report;
use rt::vmx::insn::{self, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::field;

use crate::lab::{Lab, TARGET, leaf, reason};
use crate::place::Place;

code64! {
    fn paging_code = "vmcall";
}

/// Entry bits: present, writable, user.
const OPEN: u64 = 7;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for place in lab.places() {
        for mode in [Mode::Long, Mode::Prot32, Mode::Pae] {
            for with_ept in [true, false] {
                root_of_l2(lab, place, mode, with_ept);
            }
        }
        host_root(lab, place);
        if place.is_memory() {
            one_page_for_l2(lab, place);
            one_page_for_l1(lab, place);
            pdptes(lab, place);
        }
    }
    loops(lab);
}

/// L2's CR3 at the place, whatever is there.
fn root_of_l2(lab: &mut Lab, place: Place, mode: Mode, with_ept: bool) {
    if !lab.vm.can(mode, with_ept) {
        return;
    }
    // Outside IA-32e mode CR3 has 32 bits that count.
    if !mode.is_ia32e() && place.address >> 32 != 0 {
        return;
    }
    let fills: &[u64] = if place.is_memory() {
        &[0, u64::MAX, OPEN, place.address | OPEN, 0x87]
    } else {
        &[0]
    };
    for value in fills {
        if place.is_memory() {
            place.fill(*value);
        }
        lab.fresh(mode, with_ept);
        lab.vm.load(&paging_code());
        write(field::GUEST_CR3, place.address);
        // With EPT the place is where L2 looks for its tables, unless its own memory is there.
        let gpa = place.address;
        let is_mapped = with_ept && (layout::BYTES..1 << 30).contains(&gpa);
        if is_mapped {
            lab.vm.ept().map(gpa, place.address, 7);
            lab.flush();
        }
        let name = mode.name();
        lab.run(format_args!(
            "{name} root at {} with {value:#x} ept {with_ept}",
            place.name
        ));
        if is_mapped {
            lab.vm.ept().set_entry(gpa, 1, 0);
        }
    }
}

/// One page that is L2's table of every level, without EPT and with it.
fn one_page_for_l2(lab: &mut Lab, place: Place) {
    for with_ept in [false, true] {
        lab.fresh(Mode::Long, with_ept);
        lab.vm.load(&paging_code());
        let (base, root) = if with_ept {
            lab.vm.ept().set_entry(TARGET, 1, leaf(place.address));
            lab.flush();
            (0, TARGET)
        } else {
            (lab.vm.memory.address(), place.address)
        };
        place.fill(0);
        place.poke(0, root | OPEN);
        for page in 1..layout::BYTES / 4096 {
            place.poke(8 * page, (base + 4096 * page) | OPEN);
        }
        write(field::GUEST_CR3, root);
        let what = format_args!("one page for all levels, {}, ept {with_ept}", place.name);
        lab.expect(what, &[reason::VMCALL]);
        let is_used = place.peek(0) & 0x20 != 0;
        report::check(format_args!("accessed flag at {}", place.name), is_used);
    }
}

/// Makes one page L1's table of every level: it maps this program one to one, from 1 MiB on.
fn map_l1(place: &Place) {
    place.fill(0);
    place.poke(0, place.address | 3);
    // As entries of a page directory: large pages.
    for slot in 1..0x100 {
        place.poke(8 * slot, slot << 21 | 0x83);
    }
    // As entries of a page table: 1 MiB to 2 MiB.
    for slot in 0x100..0x200 {
        place.poke(8 * slot, slot << 12 | 3);
    }
}

/// L1 itself runs on tables at the place, and lets its VMX instructions read memory through them.
fn one_page_for_l1(lab: &mut Lab, place: Place) {
    let name = place.name;
    lab.prepare(&paging_code());
    map_l1(&place);
    let kept = cpu::cr3();
    let pointer = lab.vm.vmcs.address();
    // SAFETY: the tables map this program, its stacks and tables one to one; it touches nothing else
    // until the old ones are back.
    let (stored, loaded, written) = unsafe {
        cpu::set_cr3(place.address);
        let stored = insn::vmptrst();
        let loaded = insn::vmptrld(&pointer);
        let written = insn::invept(2, [0, 0]);
        cpu::set_cr3(kept);
        (stored, loaded, written)
    };
    let is_right = stored == Ok(pointer) && loaded.is_ok() && written.is_ok();
    report::check(format_args!("L1's tables at {name}"), is_right);
    // The exit goes to those tables, too.
    map_l1(&place);
    write(field::HOST_CR3, place.address);
    let what = format_args!("host tables at {name}");
    lab.expect(what, &[reason::VMCALL]);
}

/// A host CR3 that leads nowhere, in an entry that fails on another rule.
fn host_root(lab: &mut Lab, place: Place) {
    lab.prepare(&paging_code());
    write(field::HOST_CR3, place.address);
    write(field::HOST_TR_SELECTOR, 0);
    lab.run(format_args!("host CR3 {}, no TR", place.name));
}

/// PDPTEs from a table at the place, without EPT: each bit, and entries that lead back.
fn pdptes(lab: &mut Lab, place: Place) {
    for bit in 0..64 {
        lab.fresh(Mode::Pae, false);
        lab.vm.load(&paging_code());
        let good = lab.vm.memory.read::<u64>(layout::TABLES);
        place.fill(0);
        for offset in [0, 0xfe0] {
            place.poke(offset, good ^ 1 << bit);
            place.poke(offset + 8, place.address | 1);
        }
        let root = place.address + if bit % 2 == 0 { 0 } else { 0xfe0 };
        write(field::GUEST_CR3, root);
        lab.run(format_args!("PDPTE bit {bit} at {}", place.name));
    }
}

/// L2's tables lead to themselves, by EPT to L1's tables, and by those to themselves.
fn loops(lab: &mut Lab) {
    lab.prepare(&paging_code());
    lab.vm.memory.write(layout::TABLES, layout::TABLES | OPEN);
    lab.run(format_args!("L2's root is its own table"));
    lab.prepare(&paging_code());
    let root = lab.vm.ept().pointer() & !0xfff;
    lab.vm.ept().set_entry(TARGET, 1, leaf(root));
    lab.flush();
    write(field::GUEST_CR3, TARGET);
    lab.run(format_args!("EPT as L2's paging structures"));
    lab.prepare(&paging_code());
    write(
        field::EPT_POINTER,
        (lab.vm.memory.address() + layout::TABLES) | 0x1e,
    );
    lab.flush();
    lab.run(format_args!("L2's paging structures as EPT"));
}
