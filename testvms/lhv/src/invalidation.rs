//! INVEPT and INVVPID: types, descriptors, and what they are for.
//!
//! SDM "INVEPT", "INVVPID", "Operations that Invalidate Cached Mappings".

use rt::vmx::ept::{ALL, READ};
use rt::vmx::insn::{self, Shown, write};
use rt::vmx::{Outcome, VmxError};
use rt::{l2_code, println};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn store = "mov dword ptr [0xc010], 5", "vmcall";
}

const BAD: Result<(), VmxError> = Err(VmxError::Valid(28));

fn expect(t: &mut Tester, what: &str, result: Result<(), VmxError>, is_good: bool) {
    println!("{what}: {}", Shown(result));
    t.check(what, result == if is_good { Ok(()) } else { BAD });
}

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    let caps = t.vmx.caps.ept_vpid;
    t.fresh(&store());
    if caps & 1 << 20 != 0 {
        invept(t, caps);
    } else {
        t.skip("INVEPT");
    }
    if caps & 1 << 32 != 0 {
        invvpid(t, caps);
    } else {
        t.skip("INVVPID");
    }
    if t.with_ept && caps & 1 << 25 != 0 {
        rights(t);
    }
    tagged(t);
}

fn invept(t: &mut Tester, caps: u64) {
    let pointer = t.vm.ept.as_ref().map_or(0, |ept| ept.pointer());
    let beyond = 1u64 << rt::cpu::maxphyaddr();
    expect(
        t,
        "INVEPT single",
        insn::invept(1, [pointer, 0]),
        caps & 1 << 25 != 0,
    );
    expect(
        t,
        "INVEPT all",
        insn::invept(2, [0, 0]),
        caps & 1 << 26 != 0,
    );
    expect(t, "INVEPT type 0", insn::invept(0, [pointer, 0]), false);
    expect(t, "INVEPT type 3", insn::invept(3, [pointer, 0]), false);
    for (name, bad) in [
        ("INVEPT, memory type 5", pointer & !7 | 5),
        ("INVEPT, walk length 3", pointer & !0x38 | 2 << 3),
        ("INVEPT, reserved bit 8", pointer | 1 << 8),
        ("INVEPT, beyond the physical width", pointer | beyond),
    ] {
        expect(t, name, insn::invept(1, [bad, 0]), false);
    }
}

fn invvpid(t: &mut Tester, caps: u64) {
    let has = |kind: u64| caps & 1 << (40 + kind) != 0;
    for (name, kind) in [
        ("INVVPID address", 0),
        ("INVVPID single", 1),
        ("INVVPID all", 2),
        ("INVVPID single, keeping globals", 3),
    ] {
        expect(t, name, insn::invvpid(kind, [1, 0x9000]), has(kind));
    }
    expect(t, "INVVPID type 4", insn::invvpid(4, [1, 0]), false);
    expect(
        t,
        "INVVPID address, VPID 0",
        insn::invvpid(0, [0, 0x9000]),
        false,
    );
    expect(t, "INVVPID single, VPID 0", insn::invvpid(1, [0, 0]), false);
    expect(
        t,
        "INVVPID keeping globals, VPID 0",
        insn::invvpid(3, [0, 0]),
        false,
    );
    expect(t, "INVVPID all, VPID 0", insn::invvpid(2, [0, 0]), has(2));
    expect(
        t,
        "INVVPID, reserved bits",
        insn::invvpid(1, [0x1_0001, 0]),
        false,
    );
    expect(
        t,
        "INVVPID address, not canonical",
        insn::invvpid(0, [1, 1 << 63]),
        false,
    );
}

/// Rights taken away in EPT count after INVEPT; rights added count without.
fn rights(t: &mut Tester) {
    const PAGE: u64 = 0xc000;
    t.fresh(&store());
    t.reach_end("store");
    t.vm.ept().map(PAGE, t.vm.memory.address() + PAGE, READ);
    expect(
        t,
        "INVEPT single",
        insn::invept(1, [t.vm.ept().pointer(), 0]),
        true,
    );
    t.vm.jump(0);
    t.exit("store, read-only now", Reason::EptViolation);
    t.vm.ept().map(PAGE, t.vm.memory.address() + PAGE, ALL);
    t.reach_end("store, writable again");
}

/// L2 with a VPID: a change of its own tables counts after INVVPID.
fn tagged(t: &mut Tester) {
    t.fresh(&store());
    if !t.vm.proc2(Proc2::ENABLE_VPID, Proc2::empty()) {
        t.skip("VPID");
        return;
    }
    write(field::VIRTUAL_PROCESSOR_ID, 7);
    write(field::EXCEPTION_BITMAP, 1 << 14);
    t.reach_end("store with VPID 7");
    let at = rt::vmx::vm::layout::PAGE_TABLE + 8 * 12;
    let entry = t.vm.memory.read::<u64>(at);
    t.vm.memory.write(at, 0u64);
    let _ = insn::invvpid(1, [7, 0]);
    t.vm.jump(0);
    t.exit("store, not present any more", Reason::ExceptionOrNmi);
    t.vm.memory.write(at, entry);
    t.reach_end("store, present again");
    write(field::VIRTUAL_PROCESSOR_ID, 0);
    let outcome = t.vm.run();
    println!("entry with VPID 0: {outcome}");
    t.check(
        "entry with VPID 0",
        matches!(outcome, Outcome::Failed(VmxError::Valid(7))),
    );
}
