//! VMCS regions: what a VMCS keeps while others are current, through VMCLEAR, and when its region is
//! copied; and its launch state.
//!
//! SDM "Software Use of Virtual-Machine Control Structures", "VMCLEAR", "VMPTRLD".

use rt::case;
use rt::l2_code;
use rt::page::Page;
use rt::vmx::insn::{self, vmread_raw, vmwrite_raw};
use umbra_vmcs::field::{self, Field};

use crate::tester::Tester;

l2_code! {
    fn region_code = "vmcall", "nop", "nop", "vmcall";
}

/// More than any cache of VMCSs is likely to have.
const MANY: usize = 24;
/// A multiplier that leaves no two values alike.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    let own = t.vm.vmcs;
    let pages: [Page; MANY] = core::array::from_fn(|_| t.vmx.new_vmcs());
    kept(t, &pages);
    copied(t, &pages);
    launched(t, &pages);
    t.vm.vmcs = own;
    t.fresh(&region_code());
}

/// The value for a field under a key.
fn value(field: Field, key: u64) -> u64 {
    (u64::from(field.encoding()) + 1)
        .wrapping_mul(MIX)
        .rotate_left(key as u32 & 63)
        ^ key.wrapping_mul(MIX)
}

/// Writes every field that can be written.
fn fill(key: u64) {
    for field in field::ALL {
        let _ = vmwrite_raw(field.encoding().into(), value(field, key));
    }
}

/// A sum over every field that can be read.
fn sum() -> u64 {
    let mut sum = 0u64;
    for field in field::ALL {
        // The error number of the last failure is not what was written.
        if field == field::VM_INSTRUCTION_ERROR {
            continue;
        }
        if let Ok(value) = vmread_raw(field.encoding().into()) {
            sum = sum.rotate_left(1).wrapping_add(value);
        }
    }
    sum
}

fn load(page: &Page) {
    insn::vmptrld(&page.address()).expect("VMPTRLD of a good VMCS");
}

fn clear(page: &Page) {
    insn::vmclear(&page.address()).expect("VMCLEAR of a good VMCS");
}

/// Many VMCSs, filled, then looked at in another order, by way of VMCLEAR and without.
fn kept(t: &mut Tester, pages: &[Page; MANY]) {
    let mut sums = [0u64; MANY];
    for (key, page) in pages.iter().enumerate() {
        clear(page);
        load(page);
        fill(key as u64);
        sums[key] = sum();
    }
    let mut wrong = 0;
    for round in 0..3 {
        for n in 0..MANY {
            let key = (n * 7 + round) % MANY;
            load(&pages[key]);
            wrong += u32::from(sum() != sums[key]);
            match round {
                // Another one, not this, is cleared.
                0 => clear(&pages[(key + 11) % MANY]),
                // Loaded once more, it loses nothing.
                1 => {
                    fill(key as u64 + 100);
                    sums[key] = sum();
                    load(&pages[key]);
                    wrong += u32::from(sum() != sums[key]);
                }
                _ => {}
            }
        }
    }
    t.equal("VMCSs that lost something", wrong, 0);
    for page in pages {
        clear(page);
    }
    let none = insn::vmptrst();
    t.check("none is current", none == Ok(u64::MAX));
}

/// A region that was cleared, copied to another page: the copy is the same VMCS.
fn copied(t: &mut Tester, pages: &[Page; MANY]) {
    let bytes = t.vmx.caps.basic >> 32 & 0x1fff;
    t.check("a region's size", (1..=4096).contains(&bytes));
    for (round, is_current) in [true, false].into_iter().enumerate() {
        let (from, to) = (&pages[round], &pages[round + 2]);
        load(from);
        fill(77 + round as u64);
        let expected = sum();
        if !is_current {
            load(&pages[5]);
        }
        clear(from);
        clear(to);
        for at in (0..bytes).step_by(8) {
            let word: u64 = from.read(at);
            to.write(at, word);
        }
        load(to);
        t.equal("the copy's fields", sum(), expected);
        // The original and its copy go apart.
        fill(90);
        load(from);
        t.equal("the original's fields", sum(), expected);
    }
    for page in pages {
        clear(page);
    }
}

/// Launch states of many, in turn.
fn launched(t: &mut Tester, pages: &[Page; MANY]) {
    for page in pages {
        t.vm.vmcs = *page;
        t.fresh(&region_code());
        let exit = t.vm.run();
        t.vm.jump(3);
        if page.address() == pages[0].address() {
            case!("launched: {exit}");
        }
    }
    let mut ends = 0;
    for n in 0..MANY {
        let page = &pages[n * 5 % MANY];
        load(page);
        let again = insn::vmlaunch_expecting_failure();
        t.check(
            "VMLAUNCH of a launched VMCS",
            again == Err(insn::VmxError::Valid(4)),
        );
        if n % 3 == 2 {
            clear(page);
            load(page);
            let resumed = insn::vmresume_expecting_failure();
            t.check(
                "VMRESUME after VMCLEAR",
                resumed == Err(insn::VmxError::Valid(5)),
            );
            continue;
        }
        let exit = t.vm.run();
        if n == 0 {
            case!("resumed: {exit}");
        }
        let rip = vmread_raw(field::GUEST_RIP.encoding().into());
        ends += u32::from(rip == Ok(rt::vmx::vm::layout::CODE + 5));
    }
    t.equal("came to the end", ends, (MANY - MANY / 3) as u32);
    for page in pages {
        clear(page);
    }
}
