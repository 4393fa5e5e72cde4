//! Directory pointers of an L2 with PAE paging, loaded from memory that EPT maps.
//!
//! SDM "PDPTE Registers", "Exit Qualification for EPT Violations" (no linear address), "Guest
//! Page-Directory-Pointer-Table Entries".

use rt::vmx::ept::{ALL, WRITE_BACK};
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Mode, layout};
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field;

use crate::lab::{LINEAR, Lab};
use crate::show::{Rights, Short};

/// Where the new pointers lie: below 4 GiB, as CR3 of PAE paging asks.
const GPA: u64 = 0x8000_0000;

/// MOV CR3, EAX; MOV EAX from [EDI]; VMCALL.
const MOV_CR3: [u8; 8] = [0x0f, 0x22, 0xd8, 0x8b, 0x07, 0x0f, 0x01, 0xc1];
/// MOV ECX, CR4; XOR ECX, EAX; MOV CR4, ECX; and as above.
const CHANGE_CR4: [u8; 13] = [
    0x0f, 0x20, 0xe1, 0x31, 0xc1, 0x0f, 0x22, 0xe1, 0x8b, 0x07, 0x0f, 0x01, 0xc1,
];
/// The same with CR0.
const CHANGE_CR0: [u8; 13] = [
    0x0f, 0x20, 0xc1, 0x31, 0xc1, 0x0f, 0x22, 0xc1, 0x8b, 0x07, 0x0f, 0x01, 0xc1,
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for on in [false, true] {
        start(lab);
        if !lab.use_flags(on) {
            continue;
        }
        let word = if on { "flags on" } else { "flags off" };
        for offset in [0, 0x20, 0xfe0] {
            mov_cr3(lab, word, on, offset);
        }
        for (name, code, bits) in [
            ("CR4.PGE", &CHANGE_CR4, 1 << 7),
            ("CR4.PSE", &CHANGE_CR4, 1 << 4),
            ("CR4.SMEP", &CHANGE_CR4, 1 << 20),
            ("CR4.OSFXSR", &CHANGE_CR4, 1 << 9),
            ("CR0.CD", &CHANGE_CR0, 1 << 30),
            ("CR0.CD and NW", &CHANGE_CR0, 3 << 29),
            ("CR0.WP", &CHANGE_CR0, 1 << 16),
            ("CR0.TS", &CHANGE_CR0, 1 << 3),
        ] {
            change(lab, word, name, code, bits);
        }
        reserved(lab, word);
    }
    lab.reset(Mode::Long);
}

/// A PAE L2 that may write its control registers.
fn start(lab: &mut Lab) {
    lab.reset(Mode::Pae);
    lab.vm.proc(
        Proc::empty(),
        Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING,
    );
    lab.path.gpa = GPA;
    // In 32-bit paging nothing can point at the page under test but an entry of L2's below 4 GiB.
    lab.point(layout::DATA, 0x67);
    lab.vm.memory.write(layout::DATA + 0x10, 0x7777_7777u32);
    fill(lab, 0);
    map(lab, WRITE_BACK | ALL);
}

fn map(lab: &Lab, bits: u64) {
    lab.ept().set_entry(GPA, 1, lab.target.address() | bits);
    lab.flush();
}

/// Good pointers at an offset of the page: the first to L2's directory, the rest not present.
fn fill(lab: &Lab, offset: u64) {
    lab.target.fill(0);
    lab.target.write(offset, (layout::TABLES + 0x2000) | 1);
    lab.target.write(offset + 0x18, 0x3000u64 | 1);
}

/// L2 stands before its first instruction with the pointers that it had at the start.
fn rewind(lab: &mut Lab, cr3: u64) {
    let cr0 = lab.vmx.caps.cr0_fixed0 & lab.vmx.caps.cr0_fixed1 | 0x8000_0011;
    write(field::GUEST_CR0, cr0);
    write(field::GUEST_CR3, cr3);
    write(field::GUEST_CR4, lab.vmx.caps.cr4_fixed0 | 1 << 5);
    write(field::GUEST_PDPTE0, (layout::TABLES + 0x2000) | 1);
    write(field::GUEST_PDPTE3, 0);
    lab.vm.registers.rdi = LINEAR + 0x10;
}

fn print(lab: &mut Lab, id: core::fmt::Arguments<'_>, answer: Short) {
    let rip = read(field::GUEST_RIP).wrapping_sub(layout::CODE);
    let cr3 = read(field::GUEST_CR3);
    let last = read(field::GUEST_PDPTE3);
    let rax = lab.vm.registers.rax;
    lab.record(
        id,
        format_args!("{answer} at {rip:x} cr3={cr3:x} pdpte3={last:x} rax={rax:x}"),
    );
}

fn mov_cr3(lab: &mut Lab, word: &str, on: bool, offset: u64) {
    fill(lab, offset);
    for rights in 0..8 {
        map(lab, WRITE_BACK | rights);
        rewind(lab, layout::TABLES);
        lab.vm.registers.rax = GPA + offset;
        let answer = lab.execute(&MOV_CR3);
        let flags = lab.ept().entry(GPA, 1) >> 8 & 3;
        print(
            lab,
            format_args!("MOV CR3 +{offset:x} {word} {} ({flags})", Rights(rights)),
            answer,
        );
        map(lab, WRITE_BACK | ALL);
        lab.vm.registers.rax = GPA + offset;
        let answer = lab.resume();
        print(lab, format_args!("mended"), answer);
    }
    for bits in [7 << 3 | ALL, 1 << rt::cpu::maxphyaddr() | WRITE_BACK | ALL] {
        map(lab, bits);
        rewind(lab, layout::TABLES);
        lab.vm.registers.rax = GPA + offset;
        let answer = lab.execute(&MOV_CR3);
        print(
            lab,
            format_args!("MOV CR3 +{offset:x} {word} {bits:x}"),
            answer,
        );
    }
    map(lab, WRITE_BACK | ALL);
    let _ = on;
}

/// A change of a control register loads the pointers again, or does not.
fn change(lab: &mut Lab, word: &str, name: &str, code: &[u8], bits: u64) {
    fill(lab, 0);
    for rights in [ALL, 1, 0] {
        map(lab, WRITE_BACK | rights);
        rewind(lab, GPA);
        lab.vm.registers.rax = bits;
        let answer = lab.execute(code);
        print(
            lab,
            format_args!("{name} {word} {}", Rights(rights)),
            answer,
        );
    }
    map(lab, WRITE_BACK | ALL);
}

/// Reserved bits of a pointer that is present.
fn reserved(lab: &mut Lab, word: &str) {
    for slot in 0..4 {
        for bit in [1, 2, 5, 8, 9, 11, rt::cpu::maxphyaddr(), 62, 63] {
            fill(lab, 0);
            let entry = if slot == 0 {
                (layout::TABLES + 0x2000) | 1
            } else {
                0x3001
            };
            lab.target.write(8 * slot, entry | 1 << bit);
            rewind(lab, layout::TABLES);
            lab.vm.registers.rax = GPA;
            lab.flush();
            let answer = lab.execute(&MOV_CR3);
            print(lab, format_args!("{word} pointer {slot} bit {bit}"), answer);
        }
    }
}
