//! Entries of the VM-entry MSR-load list.
//!
//! SDM "Loading MSRs". The exit lists are left alone: an entry that fails there is a VMX abort.

use rt::cpu;
use rt::vmx::vm::Mode;
use umbra_vmcs::field;

use crate::host::EDGES;
use crate::lab::Lab;

/// Where the entry-load list lies among the lists' pages.
const LIST: u64 = 8192;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    if lab.begin("entry list", Mode::Long, true) {
        entries(lab);
        lab.end();
    }
}

/// One list: `count` harmless entries, and at `index` the one under test.
fn case(lab: &mut Lab, index: u64, count: u64, msr: u32, reserved: u32, value: u64) {
    let list = lab.pages.lists;
    for slot in 0..count {
        let at = LIST + slot * 16;
        let (msr, reserved, value) = if slot == index {
            (msr, reserved, value)
        } else {
            (0x174, 0, 0)
        };
        list.write(at, msr);
        list.write(at + 4, reserved);
        list.write(at + 8, value);
    }
    lab.set(field::VM_ENTRY_MSR_LOAD_COUNT, count);
    lab.run(format_args!(
        "{index}/{count} {msr:x} {reserved:x} {value:x}"
    ));
}

fn entries(lab: &mut Lab) {
    for count in [1, 2, 3, 16, 255] {
        case(lab, 0, count, 0x174, 0, 0);
        for index in [0, count / 2, count - 1] {
            case(lab, index, count, 0xc000_0100, 0, 0);
        }
    }
    for bit in 0..32 {
        case(lab, 1, 2, 0x174, 1 << bit, 0);
    }
    // MSRs that no list may load, and the x2APIC range.
    for msr in [
        0xc000_0100,
        0xc000_0101,
        0x800,
        0x802,
        0x808,
        0x830,
        0x8ff,
        0x79,
        0x8b,
        0x9e,
    ] {
        case(lab, 0, 1, msr, 0, 0);
    }
    // MSRs that hold a linear address.
    let kept =
        [0xc000_0082, 0xc000_0083, 0xc000_0102, 0x175, 0x176].map(|msr| (msr, cpu::rdmsr(msr)));
    for (msr, _) in kept {
        for value in EDGES {
            case(lab, 0, 1, msr, 0, value);
        }
    }
    // MSRs with reserved bits. Only values that L1 lives on with are accepted by a CPU.
    let pat = cpu::rdmsr(0x277);
    for bit in 0..64 {
        if 1u64 << bit & 0x0707_0707_0707_0707 == 0 {
            case(lab, 0, 1, 0x277, 0, pat | 1 << bit);
        }
    }
    let efer = cpu::rdmsr(0xc000_0080);
    for bit in 0..64 {
        if bit != 11 && bit != 0 {
            case(lab, 0, 1, 0xc000_0080, 0, efer ^ 1 << bit);
        }
    }
    for (msr, value) in kept {
        // SAFETY: none of these is used by this program; they are the values that were there.
        unsafe { cpu::wrmsr(msr, value) };
    }
}
