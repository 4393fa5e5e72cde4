//! The VMX instructions: pointers to every place, memory operands at every place, VMCSs and the VMXON
//! region there.

use rt::report;
use rt::vmx::insn::{self, vmread_raw, vmwrite_raw, write};
use rt::vmx::stub::{self, Return};
use rt::vmx::vm::{Mode, layout};
use rt::vmx::{Exit, VmxError};
use rt::window::{PRESENT, WRITE, Window};
use umbra_vmcs::field::{self, ALL};

use crate::lab::{Lab, reason};
use crate::place::{Kind, Place};

code64! {
    fn operand_code = "vmcall";
}

/// Where in the page operands lie: far from what a VMCS region begins with.
const AT: u64 = 0xf80;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    let window = Window::open();
    for place in lab.places() {
        pointers(lab, place);
        regions(lab, place);
    }
    for place in lab.writable_places() {
        memory_operands(lab, &window, place);
    }
    let walk = Walk::new();
    for place in lab.writable_places() {
        walked_by_two(lab, &walk, place);
    }
    far_away(lab, &walk);
    for place in lab.places().filter(Place::is_memory) {
        vmcs_there(lab, place);
        vmxon_there(lab, place);
    }
    aliases(lab);
}

/// Whether a CPU may answer so.
fn is_known<T>(result: &Result<T, VmxError>) -> bool {
    match result {
        Ok(_) | Err(VmxError::Invalid) => true,
        Err(VmxError::Valid(number)) => (1..=28).contains(number),
        Err(VmxError::Fault(fault)) => matches!(fault.vector, 6 | 12..=14),
    }
}

fn survive<T>(what: core::fmt::Arguments<'_>, result: &Result<T, VmxError>) {
    report::check(what, is_known(result));
}

/// VMCLEAR and VMPTRLD of the place, with every bit below the page and above the width.
fn pointers(lab: &mut Lab, place: Place) {
    let name = place.name;
    lab.prepare(&operand_code());
    for bit in (0..12).chain(rt::cpu::maxphyaddr()..64) {
        let pointer = place.address ^ 1 << bit;
        let results = [
            insn::vmclear(&pointer),
            insn::vmptrld(&pointer),
            insn::vmxon(&pointer),
        ];
        let is_right = results
            .iter()
            .all(|result| matches!(result, Err(VmxError::Valid(_))));
        report::check(format_args!("bit {bit} of a pointer to {name}"), is_right);
    }
    if place.kind == Kind::Own {
        return;
    }
    // No entry succeeds meanwhile.
    write(field::HOST_TR_SELECTOR, 0);
    for word in [0, u32::MAX, lab.vmx.caps.revision() | 1 << 31] {
        if place.is_memory() {
            place.fill(u64::MAX);
            place.poke32(0, word);
        }
        let pointer = place.address;
        let result = insn::vmptrld(&pointer);
        survive(format_args!("VMPTRLD of {name}"), &result);
        let result = insn::vmclear(&pointer);
        survive(format_args!("VMCLEAR of {name}"), &result);
        let result = insn::vmlaunch_expecting_failure();
        survive(format_args!("VMLAUNCH after {name}"), &result);
    }
}

/// VMXON with the place as the region, from outside VMX operation.
fn regions(lab: &mut Lab, place: Place) {
    if place.kind == Kind::Own {
        return;
    }
    let own = lab.vm.vmcs.address();
    let _ = insn::vmclear(&own);
    let result = insn::vmxoff();
    survive(format_args!("VMXOFF"), &result);
    if place.is_memory() {
        place.fill(u64::MAX);
    }
    let result = insn::vmxon(&place.address);
    let is_right = result == Err(VmxError::Invalid);
    report::check(format_args!("VMXON, no revision, {}", place.name), is_right);
    let region = lab.vmx.region.address();
    let is_right = insn::vmxon(&region).is_ok();
    report::check(format_args!("VMXON after {}", place.name), is_right);
    lab.prepare(&operand_code());
}

/// VMPTRST, VMREAD, VMWRITE, VMPTRLD, VMCLEAR, INVEPT and INVVPID with their operand in the place.
fn memory_operands(lab: &mut Lab, window: &Window, place: Place) {
    let name = place.name;
    lab.prepare(&operand_code());
    let page = window.map(0, place.address, PRESENT | WRITE);
    let own = lab.vm.vmcs.address();
    let field = u64::from(field::CR3_TARGET_VALUE_0.encoding());
    for at in [AT, 0, 0xff8, 0xffc] {
        if place.kind == Kind::Own && at != AT {
            continue;
        }
        // The page behind is the same, so that an operand may cross.
        let _ = window.map(1, place.address, PRESENT | WRITE);
        let linear = page + at;
        if place.is_memory() {
            place.fill(0);
        }
        let result = rt::vmx_insn!("vmptrst [{p}]", p = in(reg) linear);
        survive(format_args!("VMPTRST to {name} {at:#x}"), &result);
        if place.is_memory() && at <= 0xff8 {
            let is_right = place.peek(at) == own;
            report::check(format_args!("the pointer at {name}"), is_right);
        }
        let _ = vmwrite_raw(field, 0x1122_3344_5566_7788);
        let result = rt::vmx_insn!("vmread [{p}], {e}", p = in(reg) linear, e = in(reg) field);
        survive(format_args!("VMREAD to {name} {at:#x}"), &result);
        let result = rt::vmx_insn!("vmwrite {e}, [{p}]", p = in(reg) linear, e = in(reg) field);
        survive(format_args!("VMWRITE from {name} {at:#x}"), &result);
        if place.is_memory() {
            let is_right = vmread_raw(field) == Ok(0x1122_3344_5566_7788);
            report::check(format_args!("the value by way of {name}"), is_right);
        }
        // A pointer that lies there: whatever it reads as, but where it could be a good one.
        if place.is_memory() {
            place.fill(place.address);
        }
        if place.kind != Kind::Own {
            let result = rt::vmx_insn!("vmptrld [{p}]", p = in(reg) linear);
            survive(format_args!("VMPTRLD by {name} {at:#x}"), &result);
            let result = rt::vmx_insn!("vmclear [{p}]", p = in(reg) linear);
            survive(format_args!("VMCLEAR by {name} {at:#x}"), &result);
            let result = rt::vmx_insn!("vmxon [{p}]", p = in(reg) linear);
            survive(format_args!("VMXON by {name} {at:#x}"), &result);
        }
        for kind in 0..5u64 {
            let result = rt::vmx_insn!("invept {k}, [{p}]", k = in(reg) kind, p = in(reg) linear);
            survive(format_args!("INVEPT {kind} by {name}"), &result);
            let result = rt::vmx_insn!("invvpid {k}, [{p}]", k = in(reg) kind, p = in(reg) linear);
            survive(format_args!("INVVPID {kind} by {name}"), &result);
        }
        let _ = insn::vmptrld(&own);
    }
    let _ = window.map(0, 0, 0);
    let _ = window.map(1, 0, 0);
}

/// A way of its own from this program's PML4 table to a page: one table a level.
struct Walk {
    /// The tables of levels 3, 2 and 1, then the page and one behind it.
    pages: rt::page::Page,
}

impl Walk {
    /// What it translates: nothing else is in that half tebibyte.
    const LINEAR: u64 = 1 << 39;

    fn new() -> Self {
        let walk = Self {
            pages: rt::page::Page::alloc(5),
        };
        walk.mend();
        walk
    }

    fn page(&self, level: u64) -> u64 {
        self.pages.address() + (3 - level) * 4096
    }

    /// Makes all entries good.
    fn mend(&self) {
        for level in 1..=4 {
            self.set(level, self.page(level - 1) | PRESENT | WRITE);
        }
    }

    /// Writes the first entry of the table of a level that leads to [`LINEAR`](Self::LINEAR).
    fn set(&self, level: u64, entry: u64) {
        if level == 4 {
            let root = rt::cpu::cr3() & !0xfff;
            // SAFETY: an entry of this program's PML4 table that it does not use otherwise.
            unsafe { ((root + 8) as *mut u64).write_volatile(entry) };
        } else {
            self.pages.write((3 - level) * 4096, entry);
        }
        self.forget();
    }

    /// Drops what the CPU has cached of it.
    fn forget(&self) {
        // SAFETY: drops all translations that are not global; the tables map this program as before.
        unsafe { rt::cpu::set_cr3(rt::cpu::cr3()) };
    }
}

/// The CPU walks L1's tables for a MOV, and a hypervisor below for the operand of a VMX instruction:
/// with the place as a table of each level, and as the page, both end alike.
fn walked_by_two(lab: &mut Lab, walk: &Walk, place: Place) {
    lab.prepare(&operand_code());
    walk.mend();
    let page = walk.page(0);
    let good = page | PRESENT | WRITE;
    let fills = [
        good,
        0,
        u64::MAX,
        page | PRESENT,
        page | PRESENT | WRITE | 0x80,
        good | 1 << 51,
        good | 1 << 63,
        good | 0x1000,
        place.address | PRESENT | WRITE,
    ];
    let fills = if place.is_memory() {
        &fills[..]
    } else {
        &fills[..1]
    };
    for level in 1..=4 {
        for value in fills {
            let mut ends = [None; 3];
            for (n, end) in ends.iter_mut().enumerate() {
                if place.is_memory() {
                    place.fill(*value);
                }
                walk.set(level, place.address | PRESENT | WRITE);
                let at = Walk::LINEAR + 0xff0;
                let result = match n {
                    0 => rt::vmx_insn!("mov [{p}], {v}", p = in(reg) at, v = in(reg) *value),
                    1 => rt::vmx_insn!("vmptrst [{p}]", p = in(reg) at),
                    _ => rt::vmx_insn!("lock or qword ptr [{p}], 0", p = in(reg) at),
                };
                *end = match result {
                    Err(VmxError::Fault(f)) => Some((f.vector, f.error, f.cr2)),
                    _ => None,
                };
            }
            let name = place.name;
            let is_same = ends[0] == ends[1] && ends[1] == ends[2];
            let what = format_args!("level {level} at {name} with {value:#x}: {ends:x?}");
            report::check(what, is_same);
            walk.mend();
        }
    }
    walk.set(4, 0);
}

/// L1 reads and has operands written all over the physical width, where nothing is: more gibibytes than
/// a hypervisor has tables for.
fn far_away(lab: &mut Lab, walk: &Walk) {
    lab.prepare(&operand_code());
    walk.mend();
    let width = rt::cpu::maxphyaddr();
    for n in 0..400u64 {
        let address = (n << 30 | n.reverse_bits() >> (64 - width + 1) | 1 << (width - 1)) & !0xfff;
        let address = address & ((1 << width) - 1);
        walk.set(1, address | PRESENT | WRITE);
        let at = Walk::LINEAR;
        let read = rt::vmx_insn!("mov {v}, [{p}]", p = in(reg) at, v = out(reg) _);
        let stored = rt::vmx_insn!("vmptrst [{p}]", p = in(reg) at);
        let is_right = !matches!(read, Err(VmxError::Fault(_))) && stored.is_ok();
        report::check(format_args!("{address:#x} of L1's"), is_right);
        lab.vm
            .ept()
            .set_entry(crate::lab::TARGET, 1, crate::lab::leaf(address));
        lab.flush();
        lab.vm.memory.write_bytes(layout::CODE, &READ_TARGET);
        write(field::GUEST_RIP, layout::CODE);
        lab.expect(format_args!("{address:#x} of L2's"), &[reason::VMCALL]);
    }
    walk.set(4, 0);
}

/// MOV EAX, [100000H]; VMCALL.
const READ_TARGET: [u8; 10] = [0x8b, 0x04, 0x25, 0, 0, 0x10, 0, 0x0f, 0x01, 0xc1];

/// Copies the current VMCS to the one at the place, field by field, and makes that one current.
fn copy_vmcs(lab: &mut Lab, place: &Place) -> bool {
    let mut values = [None; field::FIELD_COUNT];
    for field in ALL.iter().filter(|field| !field.is_read_only()) {
        values[field.index()] = vmread_raw(u64::from(field.encoding())).ok();
    }
    place.fill(0);
    let is_loaded = insn::vmclear(&place.address).is_ok() && {
        place.poke32(0, lab.vmx.caps.revision());
        insn::vmptrld(&place.address).is_ok()
    };
    for field in ALL {
        if let Some(value) = values[field.index()] {
            let _ = vmwrite_raw(u64::from(field.encoding()), value);
        }
    }
    is_loaded && insn::vmptrst() == Ok(place.address)
}

/// Enters L2 by the current VMCS, whichever it is.
fn enter(lab: &mut Lab, launch: bool) -> Option<Exit> {
    match stub::enter(&mut lab.vm.registers, launch, false) {
        Return::Exited => Some(Exit::read(true)),
        _ => None,
    }
}

/// A VMCS at the place, used as any other.
fn vmcs_there(lab: &mut Lab, place: Place) {
    let name = place.name;
    lab.prepare(&operand_code());
    let is_there = copy_vmcs(lab, &place);
    report::check(format_args!("a VMCS at {name}"), is_there);
    let is_call = |exit: Option<Exit>| exit.is_some_and(|e| e.basic() == reason::VMCALL);
    let exit = enter(lab, true);
    report::check(format_args!("VMLAUNCH at {name}"), is_call(exit));
    write(field::GUEST_RIP, layout::CODE);
    let exit = enter(lab, false);
    report::check(format_args!("VMRESUME at {name}"), is_call(exit));
    // Its data are in memory after VMCLEAR, and come back.
    write(field::CR3_TARGET_VALUE_0, 0x4455);
    let is_cleared = insn::vmclear(&place.address).is_ok();
    let is_back = insn::vmptrld(&place.address).is_ok()
        && vmread_raw(u64::from(field::CR3_TARGET_VALUE_0.encoding())) == Ok(0x4455);
    report::check(format_args!("VMCLEAR keeps {name}"), is_cleared && is_back);
    let _ = insn::vmclear(&place.address);
    // Whatever else is there for its data: read every field, and enter with no host TR.
    for pattern in [0x5555_5555_5555_5555, u64::MAX, 0x8000_0000_0000_0001] {
        place.fill(pattern);
        place.poke32(0, lab.vmx.caps.revision());
        let _ = insn::vmclear(&place.address);
        let result = insn::vmptrld(&place.address);
        report::check(format_args!("garbage at {name}"), result.is_ok());
        let mut readable = 0;
        for field in ALL {
            readable += u32::from(vmread_raw(u64::from(field.encoding())).is_ok());
        }
        report::check(format_args!("{readable} fields"), readable > 100);
        write(field::HOST_TR_SELECTOR, 0);
        let result = insn::vmlaunch_expecting_failure();
        survive(format_args!("VMLAUNCH of garbage at {name}"), &result);
        let _ = insn::vmclear(&place.address);
    }
    lab.fresh(Mode::Long, true);
}

/// The VMXON region at the place.
fn vmxon_there(lab: &mut Lab, place: Place) {
    let own = lab.vm.vmcs.address();
    let _ = insn::vmclear(&own);
    let is_off = insn::vmxoff().is_ok();
    place.fill(0);
    place.poke32(0, lab.vmx.caps.revision());
    let is_on = insn::vmxon(&place.address).is_ok();
    report::check(format_args!("VMXON at {}", place.name), is_off && is_on);
    let cleared = insn::vmclear(&place.address);
    let loaded = insn::vmptrld(&place.address);
    // 3: VMCLEAR with the VMXON pointer; 10: VMPTRLD with it. With no current VMCS there is no room
    // for the number.
    let is_right = cleared == Err(VmxError::Invalid) && loaded == Err(VmxError::Invalid);
    report::check(format_args!("the VMXON pointer, {}", place.name), is_right);
    place.fill(u64::MAX);
    lab.sane(format_args!("with the VMXON region at {}", place.name));
    let _ = insn::vmclear(&own);
    let is_off = insn::vmxoff().is_ok();
    let region = lab.vmx.region.address();
    let is_on = insn::vmxon(&region).is_ok();
    report::check(format_args!("back from {}", place.name), is_off && is_on);
    lab.prepare(&operand_code());
}

/// More VMCSs than anything keeps, all of them in hidden memory, which is one page: what the last one
/// left there is what all of them have. In memory of L1's own each keeps what it has.
fn aliases(lab: &mut Lab) {
    let pages = rt::page::Page::alloc(40);
    let revision = lab.vmx.caps.revision();
    let encoding = u64::from(field::CR3_TARGET_VALUE_0.encoding());
    for n in 0..40 {
        pages.write(n * 4096, revision);
        let pointer = pages.address() + n * 4096;
        let is_right = insn::vmclear(&pointer).is_ok()
            && insn::vmptrld(&pointer).is_ok()
            && vmwrite_raw(encoding, n).is_ok();
        report::check(format_args!("VMCS {n}"), is_right);
    }
    for n in 0..40 {
        let pointer = pages.address() + n * 4096;
        let is_right = insn::vmptrld(&pointer).is_ok() && vmread_raw(encoding) == Ok(n);
        report::check(format_args!("VMCS {n} again"), is_right);
        let _ = insn::vmclear(&pointer);
    }
    let Some(hidden) = lab.hidden.clone() else {
        return;
    };
    for round in 0..3 {
        for pointer in (hidden.start..hidden.end).step_by(0x2_1000).take(100) {
            let first = Place {
                name: "hidden",
                address: pointer,
                kind: Kind::Hidden,
            };
            first.poke32(0, revision);
            let result = insn::vmptrld(&pointer);
            let _ = vmwrite_raw(encoding, round);
            // What the other 99 left behind may be anything; without a host TR no entry succeeds.
            let _ = vmwrite_raw(u64::from(field::HOST_TR_SELECTOR.encoding()), 0);
            let launched = insn::vmlaunch_expecting_failure();
            let is_right = result.is_ok() && is_known(&launched);
            report::check(format_args!("one page as VMCS {pointer:#x}"), is_right);
        }
    }
    for pointer in (hidden.start..hidden.end).step_by(0x2_1000).take(100) {
        let _ = insn::vmclear(&pointer);
    }
    let own = lab.vm.vmcs.address();
    let _ = insn::vmptrld(&own);
}
