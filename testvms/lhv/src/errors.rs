//! VMX instructions that fail, and VM entries that do.
//!
//! SDM "VM Instruction Error Numbers", "VM-Entry Checks".

use rt::page::Page;
use rt::vmx::insn::{self, Shown, read, write};
use rt::vmx::{VmxError, vmx_insn_movss};
use rt::{case, l2_code};
use umbra_vmcs::field;

use crate::tester::Tester;

l2_code! {
    fn nothing = "vmcall";
}

/// Whether a result is an exception of this vector.
pub fn is_fault(result: Result<(), VmxError>, vector: u8) -> bool {
    matches!(result, Err(VmxError::Fault(fault)) if fault.vector == vector)
}

/// Prints a result and compares it.
fn expect(
    t: &mut Tester,
    what: &str,
    result: Result<(), VmxError>,
    expected: Result<(), VmxError>,
) {
    case!("{what}: {}", Shown(result));
    t.check(what, result == expected);
}

const INVALID: Result<(), VmxError> = Err(VmxError::Invalid);

const fn valid(number: u32) -> Result<(), VmxError> {
    Err(VmxError::Valid(number))
}

/// Runs the family, once with and once without EPT.
pub fn run(t: &mut Tester) {
    let own = t.vm.vmcs.address();
    let region = t.vmx.region.address();
    t.fresh(&nothing());
    // No current VMCS.
    expect(
        t,
        "VMCLEAR of the current VMCS",
        insn::vmclear(&own),
        Ok(()),
    );
    let pointer = insn::vmptrst();
    t.check("VMPTRST without a current VMCS", pointer == Ok(u64::MAX));
    let rip = u64::from(field::GUEST_RIP.encoding());
    expect(
        t,
        "VMREAD, none current",
        insn::vmread_raw(rip).map(drop),
        INVALID,
    );
    expect(
        t,
        "VMWRITE, none current",
        insn::vmwrite_raw(rip, 0),
        INVALID,
    );
    expect(
        t,
        "VMLAUNCH, none current",
        insn::vmlaunch_expecting_failure(),
        INVALID,
    );
    expect(
        t,
        "VMRESUME, none current",
        insn::vmresume_expecting_failure(),
        INVALID,
    );
    expect(t, "VMCALL, none current", insn::vmcall(), INVALID);
    expect(
        t,
        "VMXON in root, none current",
        insn::vmxon(&region),
        INVALID,
    );
    expect(
        t,
        "VMPTRLD of a bad address, none current",
        insn::vmptrld(&1),
        INVALID,
    );

    pointers(t, own, region);
    fields(t);
    launch_state(t);
    entries(t);
}

/// VMCLEAR, VMPTRLD and VMXON with wrong addresses.
fn pointers(t: &mut Tester, own: u64, region: u64) {
    t.fresh(&nothing());
    let beyond = 1u64 << rt::cpu::maxphyaddr();
    expect(
        t,
        "VMCLEAR, not aligned",
        insn::vmclear(&(own + 8)),
        valid(2),
    );
    expect(
        t,
        "VMCLEAR, beyond the physical width",
        insn::vmclear(&(own | beyond)),
        valid(2),
    );
    expect(
        t,
        "VMCLEAR of the VMXON region",
        insn::vmclear(&region),
        valid(3),
    );
    expect(
        t,
        "VMPTRLD, not aligned",
        insn::vmptrld(&(own + 8)),
        valid(9),
    );
    expect(
        t,
        "VMPTRLD, beyond the physical width",
        insn::vmptrld(&(own | beyond)),
        valid(9),
    );
    expect(
        t,
        "VMPTRLD of the VMXON region",
        insn::vmptrld(&region),
        valid(10),
    );
    let other = Page::alloc(1);
    other.write(0, t.vmx.caps.revision() ^ 1);
    expect(
        t,
        "VMPTRLD, wrong revision",
        insn::vmptrld(&other.address()),
        valid(11),
    );
    other.write(0, t.vmx.caps.revision() | 1 << 31);
    let can_shadow = t
        .vmx
        .caps
        .offers_proc2(umbra_vmcs::controls::Proc2::VMCS_SHADOWING);
    let expected = if can_shadow { Ok(()) } else { valid(11) };
    let result = insn::vmptrld(&other.address());
    // Not printed: it depends on whether VMCS shadowing is offered.
    t.check("VMPTRLD of a shadow VMCS", result == expected);
    let _ = insn::vmclear(&other.address());
    let _ = insn::vmptrld(&own);
    let pointer = insn::vmptrst();
    t.check("VMPTRST gives the current VMCS", pointer == Ok(own));
    expect(t, "VMXON in root", insn::vmxon(&region), valid(15));
}

/// VMREAD and VMWRITE of fields there are none of, and of those that cannot be written.
fn fields(t: &mut Tester) {
    for encoding in [
        0x7fff,
        0x6c20,
        0x4826 + 1,
        0x1_0000,
        0x1000_0000_4826,
        0x8000,
    ] {
        case!("field {encoding:x}");
        expect(t, "VMREAD", insn::vmread_raw(encoding).map(drop), valid(12));
        expect(t, "VMWRITE", insn::vmwrite_raw(encoding, 0), valid(12));
    }
    let reason = u64::from(field::EXIT_REASON.encoding());
    let expected = if t.vmx.caps.vmwrite_any_field() {
        Ok(())
    } else {
        valid(13)
    };
    expect(
        t,
        "VMWRITE of the exit reason",
        insn::vmwrite_raw(reason, 0),
        expected,
    );
    // Widths: what is written beyond the field's width does not come back.
    for (name, field, mask) in [
        ("16-bit field", field::GUEST_ES_SELECTOR, 0xffff),
        ("32-bit field", field::EXCEPTION_BITMAP, 0xffff_ffff),
        ("64-bit field", field::TSC_OFFSET, u64::MAX),
        ("natural-width field", field::GUEST_RSP, u64::MAX),
    ] {
        write(field, 0x1234_5678_9abc_def0);
        case!("{name}: {:x}", read(field));
        t.equal(name, read(field), 0x1234_5678_9abc_def0 & mask);
    }
    let high = u64::from(field::TSC_OFFSET.encoding() | 1);
    t.check("high half", insn::vmread_raw(high) == Ok(0x1234_5678));
    expect(
        t,
        "VMWRITE of a high half",
        insn::vmwrite_raw(high, 0xffff_ffff_0000_0001),
        Ok(()),
    );
    t.equal(
        "the whole field",
        read(field::TSC_OFFSET),
        0x0000_0001_9abc_def0,
    );
}

/// Clear and launched.
fn launch_state(t: &mut Tester) {
    t.fresh(&nothing());
    expect(
        t,
        "VMRESUME of a clear VMCS",
        insn::vmresume_expecting_failure(),
        valid(5),
    );
    t.reach_end("VMLAUNCH");
    expect(
        t,
        "VMLAUNCH of a launched VMCS",
        insn::vmlaunch_expecting_failure(),
        valid(4),
    );
    t.reach_end("VMRESUME");
    t.vm.clear();
    expect(
        t,
        "VMRESUME after VMCLEAR",
        insn::vmresume_expecting_failure(),
        valid(5),
    );
    t.reach_end("VMLAUNCH after VMCLEAR");

    t.fresh(&nothing());
    let result = vmx_insn_movss!("vmlaunch");
    expect(t, "VMLAUNCH blocked by MOV SS", result, valid(26));
    let result = vmx_insn_movss!("vmresume");
    expect(
        t,
        "VMRESUME of a clear VMCS, blocked by MOV SS",
        result,
        valid(26),
    );
    t.reach_end("VMLAUNCH");
    let result = vmx_insn_movss!("vmlaunch");
    expect(
        t,
        "VMLAUNCH of a launched VMCS, blocked by MOV SS",
        result,
        valid(26),
    );
    let own = t.vm.vmcs.address();
    let _ = insn::vmclear(&own);
    let result = vmx_insn_movss!("vmlaunch");
    expect(
        t,
        "VMLAUNCH without a VMCS, blocked by MOV SS",
        result,
        INVALID,
    );
    t.fresh(&nothing());
    error_number_stays(t);
}

/// What succeeds leaves the VM-instruction error alone.
fn error_number_stays(t: &mut Tester) {
    let own = t.vm.vmcs.address();
    let number = u64::from(field::VM_INSTRUCTION_ERROR.encoding());
    let caps = t.vmx.caps.ept_vpid;
    let fails = |t: &mut Tester| {
        let result = insn::vmread_raw(u64::MAX).map(drop);
        expect(t, "VMREAD of encoding ~0", result, valid(12));
    };
    fails(t);
    let _ = insn::vmptrld(&own);
    t.check("after VMPTRLD", insn::vmread_raw(number) == Ok(12));
    let _ = insn::vmptrst();
    t.check("after VMPTRST", insn::vmread_raw(number) == Ok(12));
    if caps & 1 << 34 != 0 {
        let _ = insn::invvpid(2, [0, 0]);
        t.check("after INVVPID", insn::vmread_raw(number) == Ok(12));
    }
    if caps & 1 << 26 != 0 {
        let _ = insn::invept(2, [0, 0]);
        t.check("after INVEPT", insn::vmread_raw(number) == Ok(12));
    }
    t.reach_end("after an exit");
    t.check("after an exit", insn::vmread_raw(number) == Ok(12));
    let other = Page::alloc(1);
    other.write(0, t.vmx.caps.revision());
    let _ = insn::vmclear(&other.address());
    t.check("after VMCLEAR", insn::vmread_raw(number) == Ok(12));
}

/// Entries that fail at each of the stages.
fn entries(t: &mut Tester) {
    t.fresh(&nothing());
    write(field::PIN_BASED_CONTROLS, 0xffff_ffff);
    expect(
        t,
        "entry, bad control",
        insn::vmlaunch_expecting_failure(),
        valid(7),
    );
    t.fresh(&nothing());
    write(field::IO_BITMAP_A, 1);
    expect(
        t,
        "entry, I/O bitmap not aligned",
        insn::vmlaunch_expecting_failure(),
        valid(7),
    );
    t.fresh(&nothing());
    write(field::HOST_CS_SELECTOR, 0);
    expect(
        t,
        "entry, host CS null",
        insn::vmlaunch_expecting_failure(),
        valid(8),
    );
    t.fresh(&nothing());
    write(field::HOST_CR4, read(field::HOST_CR4) & !(1 << 13));
    expect(
        t,
        "entry, host CR4.VMXE clear",
        insn::vmlaunch_expecting_failure(),
        valid(8),
    );
    for (name, field, value, qualification) in [
        ("entry, RFLAGS bit 1 clear", field::GUEST_RFLAGS, 0, 0),
        ("entry, CR4 bit 63", field::GUEST_CR4, 1 << 63 | 0x2020, 0),
        (
            "entry, TR unusable",
            field::GUEST_TR_ACCESS_RIGHTS,
            0x1_0000,
            0,
        ),
        ("entry, activity state 4", field::GUEST_ACTIVITY_STATE, 4, 0),
        (
            "entry, link pointer not aligned",
            field::VMCS_LINK_POINTER,
            0x1001,
            4,
        ),
    ] {
        t.fresh(&nothing());
        write(field, value);
        t.entry_failure(name, 33, qualification);
    }
    // A failed entry leaves the VMCS clear.
    t.fresh(&nothing());
    write(field::GUEST_RFLAGS, 0);
    t.entry_failure("entry, failing", 33, 0);
    write(field::GUEST_RFLAGS, 2);
    t.reach_end("VMLAUNCH again");
}
