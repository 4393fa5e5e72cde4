//! INVEPT and INVVPID: types, descriptors, and what they are for.
//!
//! SDM "INVEPT", "INVVPID", "Operations that Invalidate Cached Mappings".

use rt::page::Page;
use rt::vmx::ept::{ALL, READ};
use rt::vmx::insn::{self, Shown, write};
use rt::vmx::vm::layout;
use rt::vmx::{Outcome, VmxError};
use rt::window::{self, Window};
use rt::{case, l2_code, more};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn store = "mov dword ptr [0xc010], 5", "vmcall";
}

const BAD: Result<(), VmxError> = Err(VmxError::Valid(28));

fn expect(t: &mut Tester, what: &str, result: Result<(), VmxError>, is_good: bool) {
    case!("{what}: {}", Shown(result));
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
    renewed(t, caps);
    own(t);
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
    case!("entry with VPID 0: {outcome}");
    t.check(
        "entry with VPID 0",
        matches!(outcome, Outcome::Failed(VmxError::Valid(7))),
    );
}

/// What makes L2 see a change of its own tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Renewal {
    /// INVVPID of this type.
    Type(u64),
    /// No VPIDs: every transition does.
    NoVpid,
    /// A VPID that was not used before.
    AnotherVpid,
    /// Used without VPIDs in between, and with others.
    TypeLater(u64),
}

/// L2's page goes elsewhere in its own tables, and L1 does what makes that count.
fn renewed(t: &mut Tester, caps: u64) {
    const PAGE: u64 = 0xc000;
    const ELSEWHERE: u64 = 0xd000;
    let at = layout::PAGE_TABLE + 8 * (PAGE >> 12);
    let mut fresh_vpid = 0x100;
    for vpid in [1u64, 0x7fff, 0xfffc, 0xfffd, 0xfffe, 0xffff] {
        for renewal in [
            Renewal::Type(0),
            Renewal::Type(1),
            Renewal::Type(2),
            Renewal::Type(3),
            Renewal::TypeLater(1),
            Renewal::NoVpid,
            Renewal::AnotherVpid,
        ] {
            if let Renewal::Type(kind) | Renewal::TypeLater(kind) = renewal
                && caps & 1 << (40 + kind) == 0
            {
                continue;
            }
            t.fresh(&store());
            if renewal != Renewal::NoVpid && !use_vpid(t, vpid) {
                return;
            }
            t.reach_end("store");
            let entry: u64 = t.vm.memory.read(at);
            t.vm.memory.write(at, entry + (ELSEWHERE - PAGE));
            match renewal {
                Renewal::Type(kind) => insn::invvpid(kind, [vpid, PAGE]).expect("INVVPID"),
                Renewal::NoVpid => {}
                Renewal::AnotherVpid => {
                    fresh_vpid += 1;
                    use_vpid(t, fresh_vpid);
                }
                Renewal::TypeLater(kind) => {
                    insn::invvpid(kind, [vpid, PAGE]).expect("INVVPID");
                    // The old way once more, under other numbers.
                    t.vm.memory.write(at, entry);
                    for other in [vpid ^ 2, vpid ^ 4] {
                        use_vpid(t, other);
                        t.vm.jump(0);
                        t.reach_end("store under another number");
                    }
                    t.vm.memory.write(at, entry + (ELSEWHERE - PAGE));
                    use_vpid(t, vpid);
                }
            }
            t.vm.jump(0);
            t.reach_end("store elsewhere");
            let stored: u32 = t.vm.memory.read(ELSEWHERE + 0x10);
            case!("VPID {vpid:x}, {renewal:?}: {stored:x}");
            t.equal("elsewhere", stored, 5);
        }
    }
    insn::invvpid(2, [0, 0]).unwrap_or(());
}

fn use_vpid(t: &mut Tester, vpid: u64) -> bool {
    let has_it = t.vm.proc2(Proc2::ENABLE_VPID, Proc2::empty());
    if has_it {
        write(field::VIRTUAL_PROCESSOR_ID, vpid);
    }
    has_it
}

/// A transition without VPIDs drops what the CPU has cached of L1's own tables.
fn own(t: &mut Tester) {
    let window = Window::open();
    let pages = Page::alloc(2);
    let bits = window::PRESENT | window::WRITE;
    let linear = window.map(0, pages.address(), bits);
    let read = || {
        // SAFETY: the window's first page is mapped to a page of this test.
        unsafe { (linear as *const u32).read_volatile() }
    };
    for (round, number) in [0x1111u32, 0x2222].into_iter().enumerate() {
        pages.write(4096 * round as u64, number);
    }
    for (round, number) in [(1u64, 0x2222u32), (0, 0x1111), (1, 0x2222)] {
        t.fresh(&store());
        let before = read();
        window.change(0, pages.address() + 4096 * round, bits);
        t.reach_end("L1's own tables");
        more!("{before:x}, then {:x}", read());
        t.equal("L1's page", read(), number);
    }
}
