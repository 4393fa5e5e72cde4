//! Virtualization exceptions: what becomes one, what it leaves behind, what stays an exit.
//!
//! SDM "Virtualization Exceptions", "Convertible EPT Violations", "Virtualization-Exception Information".

use rt::page::Page;
use rt::vmx::ept::{ALL, READ, WRITE_BACK};
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use crate::lab::{ACCESSES, Access, LINEAR, Lab};
use crate::show::Short;

const SUPPRESS: u64 = 1 << 63;
const VE_VECTOR: u32 = 20;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    lab.reset(Mode::Long);
    if !lab.turn_on(Proc2::EPT_VIOLATION_VE, "#VE") {
        return;
    }
    let area = Page::alloc(1);
    let bench = Bench { area };
    bench.start(lab);
    for leaf in 1..=3 {
        lab.choose(leaf);
        bench.leaf(lab);
        bench.levels(lab);
    }
    lab.choose(1);
    bench.busy(lab);
    bench.others(lab);
    lab.reset(Mode::Long);
}

struct Bench {
    area: Page,
}

impl Bench {
    fn start(&self, lab: &mut Lab) {
        lab.turn_on(Proc2::EPT_VIOLATION_VE, "#VE");
        write(
            field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
            self.area.address(),
        );
        write(field::EXCEPTION_BITMAP, !(1 << VE_VECTOR) & 0xffff_ffff);
        self.clear();
    }

    fn clear(&self) {
        self.area.fill(0x33);
        self.area.write(4, 0u32);
    }

    fn print(&self, lab: &mut Lab, id: core::fmt::Arguments<'_>, answer: Short) {
        let rip = read(field::GUEST_RIP);
        let handler = layout::HANDLERS + 16 * u64::from(VE_VECTOR);
        if rip != handler {
            let busy = self.area.read::<u32>(4);
            lab.record(id, format_args!("{answer} busy={busy:x}"));
        } else {
            let reason = self.area.read::<u32>(0);
            let busy = self.area.read::<u32>(4);
            let [qualification, linear, physical] = [8, 16, 24].map(|at| self.area.read::<u64>(at));
            let index = self.area.read::<u16>(32);
            let physical = physical.wrapping_sub(lab.path.gpa);
            lab.record(
                id,
                format_args!(
                    "#VE {reason} busy={busy:x} q={qualification:x} l={linear:x} p=+{physical:x} index={index}"
                ),
            );
        }
        write(field::GUEST_RSP, layout::STACK_TOP);
        self.clear();
    }

    /// Rights of the leaf, with the suppress bit and without.
    fn leaf(&self, lab: &mut Lab) {
        let (size, leaf) = (lab.path.size(), lab.path.leaf);
        for suppress in [0, SUPPRESS] {
            let word = if suppress == 0 { "" } else { " suppressed" };
            for rights in [0, 1, 3, 4, 5] {
                for (letter, access) in ACCESSES {
                    let entry = lab.path.leaf_entry(WRITE_BACK | rights | suppress);
                    lab.set(leaf, entry);
                    let answer = lab.access(access);
                    let rights = crate::show::Rights(rights);
                    self.print(lab, format_args!("{size} {rights}{word} {letter}"), answer);
                }
            }
            let entry = lab.path.leaf_entry(2 << 3 | ALL | suppress);
            lab.set(leaf, entry);
            let answer = lab.access(Access::Read);
            self.print(lab, format_args!("{size} misconfigured{word}"), answer);
        }
        lab.mend();
    }

    /// The suppress bit that counts is that of the entry that ends the walk.
    fn levels(&self, lab: &mut Lab) {
        let (size, leaf) = (lab.path.size(), lab.path.leaf);
        for level in leaf + 1..=4 {
            for (name, upper, lower) in [
                ("absent", 0, SUPPRESS),
                ("absent, suppressed", SUPPRESS, 0),
                ("read-only", lab.path.table_entry(level, READ), SUPPRESS),
                (
                    "read-only, suppressed",
                    lab.path.table_entry(level, READ | SUPPRESS),
                    0,
                ),
                (
                    "leaf suppressed",
                    lab.path.table_entry(level, ALL),
                    SUPPRESS,
                ),
            ] {
                lab.mend();
                lab.set(level, upper);
                let entry = lab.path.leaf_entry(WRITE_BACK | READ | lower);
                lab.set(leaf, entry);
                let answer = lab.access(Access::Write);
                self.print(lab, format_args!("{size} level {level} {name}"), answer);
            }
        }
        lab.mend();
    }

    /// The word at offset 4 says that the last one was not handled yet.
    fn busy(&self, lab: &mut Lab) {
        for busy in [1u32, 0x8000_0000, 0xffff_ffff, 0] {
            lab.set(1, 0);
            self.area.write(4, busy);
            let answer = lab.access(Access::Read);
            self.print(lab, format_args!("busy {busy:x}"), answer);
        }
        // Two in a row: L2 does not clear the word.
        self.clear();
        let answer = lab.access(Access::Read);
        lab.record(format_args!("first"), answer);
        let answer = lab.access(Access::Read);
        self.print(lab, format_args!("second"), answer);
        lab.mend();
    }

    fn others(&self, lab: &mut Lab) {
        // The exception bitmap takes #VE.
        lab.set(1, 0);
        write(field::EXCEPTION_BITMAP, 0xffff_ffff);
        let answer = lab.access(Access::Write);
        self.print(lab, format_args!("exception bitmap"), answer);
        write(field::EXCEPTION_BITMAP, !(1 << VE_VECTOR) & 0xffff_ffff);
        // The control is off.
        lab.vm.proc2(Proc2::empty(), Proc2::EPT_VIOLATION_VE);
        let answer = lab.access(Access::Write);
        self.print(lab, format_args!("control off"), answer);
        lab.vm.proc2(Proc2::EPT_VIOLATION_VE, Proc2::empty());
        // During the delivery of an event.
        write(field::GUEST_RSP, LINEAR + 0x800);
        write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x8000_0020);
        let answer = lab.execute(&[0x0f, 0x01, 0xc1]);
        self.print(lab, format_args!("during delivery"), answer);
        write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
        lab.mend();
        // L2's own tables.
        for rights in [0, SUPPRESS] {
            let hpa = lab.vm.memory.address() + layout::PAGE_TABLE;
            lab.ept().map(layout::PAGE_TABLE, hpa, rights);
            lab.flush();
            write(field::EXCEPTION_BITMAP, 0xffff_ffff);
            let answer = lab.access(Access::Read);
            self.print(
                lab,
                format_args!("table, suppress {}", rights >> 63),
                answer,
            );
            lab.ept().map(layout::PAGE_TABLE, hpa, ALL);
            lab.flush();
        }
    }
}
