//! What the VMX capability MSRs say has to agree with itself and with CPUID. Nothing of it is printed:
//! a hypervisor below may offer less than the CPU.
//!
//! SDM "VMX Capability Reporting Facility".

use rt::vmx::insn::vmread_raw;
use rt::vmx::vm::Mode;
use rt::{cpu, l2_code};
use umbra_vmcs::caps::Allowed;
use umbra_vmcs::controls::{Proc, Proc2};

use crate::tester::Tester;

l2_code! {
    fn capability_code = "vmcall";
}

/// Controls that are reserved and 1 by the plain MSRs.
const PIN_DEFAULT1: u32 = 0x16;
const PROC_DEFAULT1: u32 = 0x0401_e172;
const EXIT_DEFAULT1: u32 = 0x0003_6dff;
const ENTRY_DEFAULT1: u32 = 0x11ff;

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    controls(t);
    misc(t);
    translation(t);
    fields(t);
    features(t);
}

fn controls(t: &mut Tester) {
    let caps = t.vmx.caps;
    let has_true = caps.basic & 1 << 55 != 0;
    for (plain, actual, default1, name) in [
        (
            caps.pin_plain,
            caps.pin_true,
            PIN_DEFAULT1,
            "pin-based controls",
        ),
        (
            caps.proc_plain,
            caps.proc_true,
            PROC_DEFAULT1,
            "processor-based controls",
        ),
        (
            caps.exit_plain,
            caps.exit_true,
            EXIT_DEFAULT1,
            "VM-exit controls",
        ),
        (
            caps.entry_plain,
            caps.entry_true,
            ENTRY_DEFAULT1,
            "VM-entry controls",
        ),
    ] {
        is_consistent(t, plain, name);
        t.equal(name, plain.must_be_one() & default1, default1);
        if has_true {
            is_consistent(t, actual, name);
            t.equal(name, plain.may_be_one(), actual.may_be_one());
            t.equal(name, plain.must_be_one(), actual.must_be_one() | default1);
        }
    }
    is_consistent(t, caps.proc2, "secondary controls");
    t.equal(
        "secondary controls that must be 1",
        caps.proc2.must_be_one(),
        0,
    );
    for (name, fixed0, fixed1) in [
        ("CR0", caps.cr0_fixed0, caps.cr0_fixed1),
        ("CR4", caps.cr4_fixed0, caps.cr4_fixed1),
    ] {
        t.equal(name, fixed0 & !fixed1, 0);
    }
    t.equal(
        "CR0 in VMX operation",
        cpu::cr0() & caps.cr0_fixed0,
        caps.cr0_fixed0,
    );
    t.equal("CR4 in VMX operation", cpu::cr4() & !caps.cr4_fixed1, 0);
}

fn is_consistent(t: &mut Tester, allowed: Allowed, name: &str) {
    t.equal(name, allowed.must_be_one() & !allowed.may_be_one(), 0);
}

/// IA32_VMX_BASIC and IA32_VMX_MISC.
fn misc(t: &mut Tester) {
    let caps = t.vmx.caps;
    t.equal("revision's top bit", caps.revision() >> 31, 0);
    let bytes = caps.basic >> 32 & 0x1fff;
    t.check("a region's size", (1..=4096).contains(&bytes));
    t.equal("physical width", caps.basic >> 48 & 1, 0);
    t.equal("memory type", caps.basic >> 50 & 15, 6);
    t.equal(
        "reserved bits of IA32_VMX_BASIC",
        caps.basic & 0xfc00_e000_0000_0000,
        0,
    );
    t.check("CR3 targets", caps.cr3_targets() <= 256);
    t.equal("reserved bits of IA32_VMX_MISC", caps.misc & 0x8000_3e00, 0);
    // What activity states and lists it names was tried elsewhere.
    let is_unrestricted = caps.offers_proc2(Proc2::UNRESTRICTED_GUEST);
    t.check(
        "an unrestricted guest's mode is saved",
        !is_unrestricted || caps.misc & 1 << 5 != 0,
    );
}

/// IA32_VMX_EPT_VPID_CAP.
fn translation(t: &mut Tester) {
    let caps = t.vmx.caps;
    let known = 0xf01_0673_41c1 | 1 << 7 | 1 << 23 | 0x3f << 48;
    t.equal(
        "unknown bits of IA32_VMX_EPT_VPID_CAP",
        caps.ept_vpid & !known,
        0,
    );
    if caps.offers_proc2(Proc2::ENABLE_EPT) {
        t.check("4-level walks", caps.ept_vpid & 1 << 6 != 0);
        t.check("a type for tables", caps.ept_vpid & (1 << 8 | 1 << 14) != 0);
    }
    if caps.offers_proc2(Proc2::ENABLE_PML) {
        t.check("accessed and dirty flags", caps.ept_vpid & 1 << 21 != 0);
    }
    let has_large = cpu::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0;
    t.check("1 GiB leaves", has_large || caps.ept_vpid & 1 << 17 == 0);
}

/// IA32_VMX_VMCS_ENUM names the highest index there is.
fn fields(t: &mut Tester) {
    t.fresh(&capability_code());
    let mut highest = 0;
    for index in 0..512u64 {
        let has_one = (0..16).any(|kind: u64| {
            let encoding = kind >> 2 << 13 | (kind & 3) << 10 | index << 1;
            vmread_raw(encoding).is_ok()
        });
        if has_one {
            highest = index;
        }
    }
    let named = t.vmx.caps.vmcs_enum;
    t.equal("reserved bits of IA32_VMX_VMCS_ENUM", named & !0x3fe, 0);
    // Bochs names more than there are.
    t.check("the highest index", named >> 1 & 0x1ff >= highest);
    t.check("and some that every CPU has", highest >= 0x15);
}

/// Instructions that controls enable exist if the controls do.
fn features(t: &mut Tester) {
    let caps = t.vmx.caps;
    let leaf7 = cpu::cpuid(7, 0);
    let extended = cpu::cpuid(0x8000_0001, 0).edx;
    let states = cpu::cpuid(0xd, 1).eax;
    let basic = cpu::cpuid(1, 0);
    for (name, control, has_instruction) in [
        ("RDTSCP", Proc2::ENABLE_RDTSCP, extended & 1 << 27 != 0),
        ("INVPCID", Proc2::ENABLE_INVPCID, leaf7.ebx & 1 << 10 != 0),
        ("XSAVES", Proc2::ENABLE_XSAVES_XRSTORS, states & 1 << 3 != 0),
        ("RDRAND", Proc2::RDRAND_EXITING, basic.ecx & 1 << 30 != 0),
        ("RDSEED", Proc2::RDSEED_EXITING, leaf7.ebx & 1 << 18 != 0),
        (
            "UMWAIT",
            Proc2::ENABLE_USER_WAIT_AND_PAUSE,
            leaf7.ecx & 1 << 5 != 0,
        ),
    ] {
        t.equal(name, caps.offers_proc2(control), has_instruction);
    }
    let has_monitor = basic.ecx & 1 << 3 != 0;
    t.check(
        "MONITOR",
        !has_monitor || caps.offers_proc(Proc::MONITOR_EXITING),
    );
    // Every mode that the controls promise was run by other families.
    let can_be_real = t.vm.can(Mode::Real, true);
    t.equal(
        "real mode",
        can_be_real,
        caps.offers_proc2(Proc2::UNRESTRICTED_GUEST),
    );
}
