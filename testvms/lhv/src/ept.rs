//! EPT violations and misconfigurations, large leaves, accessed and dirty flags.
//!
//! SDM "Exit Qualification for EPT Violations", "EPT Misconfigurations".

use rt::l2_code;
use rt::vmx::ept::{ALL, EXECUTE, LARGE, READ, WRITE, WRITE_BACK};
use rt::vmx::insn::{self, read, write};
use rt::vmx::vm::{Code, Mode, layout};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn ept_read = "mov eax, [0xc010]", "vmcall";
    fn ept_write = "mov dword ptr [0xc010], 5", "vmcall";
    fn ept_modify = "add dword ptr [0xc010], 1", "vmcall";
    fn ept_push = "push ax", "vmcall";
    fn ept_fetch = "vmcall";
    fn ept_far_read = "mov eax, [0xd010]", "vmcall";
}

/// The page that the tests protect.
const PAGE: u64 = 0xc000;

/// Runs the family in the tester's mode.
pub fn run(t: &mut Tester) {
    if !t.with_ept {
        return;
    }
    violations(t);
    misconfigurations(t);
    if !matches!(t.mode, Mode::Real | Mode::Flat32) {
        walk(t);
    }
    if matches!(t.mode, Mode::Long | Mode::Pae) {
        large(t);
    }
    accessed_dirty(t);
}

/// L2 anew, with other rights for the page.
fn fresh(t: &mut Tester, code: &Code, rights: u64) {
    t.fresh(code);
    t.vm.ept().map(PAGE, t.vm.memory.address() + PAGE, rights);
    t.vm.memory.write(PAGE + 0x10, 0x1357_9bdfu32);
}

fn violations(t: &mut Tester) {
    let can_execute_only = t.vmx.caps.ept_vpid & 1 != 0;
    for (name, code, rights) in [
        ("read, nothing", ept_read as fn() -> Code, 0),
        ("write, nothing", ept_write, 0),
        ("modify, nothing", ept_modify, 0),
        ("write, read-only", ept_write, READ),
        ("modify, read-only", ept_modify, READ | EXECUTE),
        ("read, execute-only", ept_read, EXECUTE),
        ("write, execute-only", ept_write, EXECUTE),
    ] {
        if rights == EXECUTE && !can_execute_only {
            t.skip(name);
            continue;
        }
        fresh(t, &code(), rights);
        let exit = t.exit(name, Reason::EptViolation);
        t.equal("physical address", exit.guest_physical, PAGE + 0x10);
        t.vm.ept().map(PAGE, t.vm.memory.address() + PAGE, ALL);
        t.reach_end("mended");
    }
    t.equal("what L2 wrote", t.vm.memory.read::<u32>(PAGE + 0x10), 5);

    for (name, rights) in [("fetch, nothing", 0), ("fetch, no execute", READ | WRITE)] {
        fresh(t, &ept_fetch(), rights);
        t.vm.memory.write_bytes(PAGE, ept_fetch().bytes(t.mode));
        t.vm.jump(PAGE - layout::CODE);
        t.exit(name, Reason::EptViolation);
        t.vm.ept().map(PAGE, t.vm.memory.address() + PAGE, ALL);
        t.reach_end("mended");
    }

    fresh(t, &ept_push(), 0);
    write(field::GUEST_RSP, PAGE + 0x800);
    t.exit("push, nothing", Reason::EptViolation);
}

fn misconfigurations(t: &mut Tester) {
    for (name, entry) in [
        ("write without read", WRITE_BACK | WRITE),
        (
            "write and execute without read",
            WRITE_BACK | WRITE | EXECUTE,
        ),
        ("memory type 2", 2 << 3 | ALL),
        ("memory type 7", 7 << 3 | ALL),
        (
            "address beyond the physical width",
            WRITE_BACK | ALL | 1 << 51,
        ),
    ] {
        fresh(t, &ept_read(), ALL);
        let hpa = t.vm.memory.address() + PAGE;
        t.vm.ept().set_entry(PAGE, 1, hpa | entry);
        let exit = t.exit(name, Reason::EptMisconfiguration);
        t.equal("physical address", exit.guest_physical, PAGE + 0x10);
    }
}

/// The violation comes from the walk of L2's own tables. With accessed and dirty flags for EPT on, a
/// walk counts as a write. (Without them setting an accessed flag of L2's does, but not on Bochs 3.0.)
fn walk(t: &mut Tester) {
    let has_flags = t.vmx.caps.ept_vpid & 1 << 21 != 0;
    for (name, rights, flags) in [
        ("walk, nothing", 0, 0),
        ("walk, read-only, flags on", READ | EXECUTE, 1 << 6),
    ] {
        if flags != 0 && !has_flags {
            t.skip(name);
            continue;
        }
        fresh(t, &ept_read(), ALL);
        write(field::EPT_POINTER, t.vm.ept().pointer() | flags);
        let page = layout::PAGE_TABLE;
        t.vm.ept().map(page, t.vm.memory.address() + page, rights);
        let _ = insn::invept(1, [t.vm.ept().pointer() | flags, 0]);
        t.exit(name, Reason::EptViolation);
        t.vm.ept().map(page, t.vm.memory.address() + page, ALL);
        t.reach_end("mended");
    }
}

/// L2's page at D000H lies at 1 GiB, which EPT maps by one large leaf.
fn large(t: &mut Tester) {
    const FAR: u64 = 0x4000_0000;
    for (name, level, bit) in [("2 MiB leaf", 2, 16), ("1 GiB leaf", 3, 17)] {
        if t.vmx.caps.ept_vpid & 1 << bit == 0 {
            t.skip(name);
            continue;
        }
        fresh(t, &ept_far_read(), ALL);
        let hpa = t.vm.memory.address() + PAGE;
        let mask = (1u64 << (12 + 9 * (level - 1))) - 1;
        t.vm.memory
            .write(layout::PAGE_TABLE + 8 * 0xd, (FAR | hpa & mask) | 7);
        t.vm.ept()
            .set_entry(FAR, level, hpa & !mask | LARGE | WRITE_BACK | ALL);
        t.reach_end(name);
        t.equal(
            "what L2 read",
            t.vm.registers.rax & 0xffff_ffff,
            0x1357_9bdf,
        );
        // Protect it again, and see that INVEPT makes that count.
        t.vm.ept()
            .set_entry(FAR, level, hpa & !mask | LARGE | WRITE_BACK);
        let _ = insn::invept(1, [t.vm.ept().pointer(), 0]);
        t.vm.jump(0);
        let exit = t.vm.run();
        let is_violation = matches!(exit, rt::vmx::Outcome::Exit(exit)
            if exit.known() == Some(Reason::EptViolation));
        t.check("no rights after INVEPT", is_violation);
        t.vm.ept().set_entry(FAR, level, 0);
    }
}

/// Bits 8 and 9 of an entry, where the pointer's bit 6 turns them on.
fn accessed_dirty(t: &mut Tester) {
    if t.vmx.caps.ept_vpid & 1 << 21 == 0 {
        t.skip("accessed and dirty flags");
        return;
    }
    for (name, code, expected) in [
        ("flags after a read", ept_read(), 1 << 8),
        ("flags after a write", ept_write(), 3 << 8),
    ] {
        fresh(t, &code, ALL);
        write(field::EPT_POINTER, read(field::EPT_POINTER) | 1 << 6);
        let _ = insn::invept(1, [t.vm.ept().pointer() | 1 << 6, 0]);
        t.reach_end(name);
        t.equal("flags", t.vm.ept().entry(PAGE, 1) & 3 << 8, expected);
    }
}
