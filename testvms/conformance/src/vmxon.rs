//! VMXON, and every VMX instruction outside VMX operation.
//!
//! SDM "VMXON", "Enabling and Entering VMX Operation". This group leaves VMX operation and comes back.

use rt::cpu;
use rt::trap;
use rt::vmx::vm::Mode;
use rt::vmx::{CR4_VMXE, VmxError, insn};

use crate::lab::Lab;
use crate::show;

/// Runs the group.
pub fn run(lab: &mut Lab) {
    if !lab.begin("vmxon", Mode::Long, false) {
        return;
    }
    let own = lab.vm.vmcs.address();
    let _ = insn::vmclear(&own);
    case(lab, format_args!("vmxoff"), insn::vmxoff());
    outside(lab, "outside");
    with_registers(lab);
    regions(lab);
    let region = lab.vmx.region.address();
    case(lab, format_args!("good"), insn::vmxon(&region));
    let pointer = insn::vmptrst();
    case(
        lab,
        format_args!("none current {}", pointer == Ok(u64::MAX)),
        pointer.map(drop),
    );
    bits_in_operation(lab);
    case(lab, format_args!("vmxoff"), insn::vmxoff());
    case(lab, format_args!("vmxoff again"), insn::vmxoff());
    case(lab, format_args!("again"), insn::vmxon(&region));
    case(lab, format_args!("vmptrld"), insn::vmptrld(&own));
    lab.refresh(Mode::Long, false);
    lab.end();
}

fn case(lab: &mut Lab, id: core::fmt::Arguments<'_>, result: Result<(), VmxError>) {
    lab.record(id, show::Result(result));
}

/// Every instruction where CR4.VMXE is set and VMX operation is off.
fn outside(lab: &mut Lab, id: &str) {
    let own = lab.vm.vmcs.address();
    case(lab, format_args!("{id} vmclear"), insn::vmclear(&own));
    case(lab, format_args!("{id} vmptrld"), insn::vmptrld(&own));
    case(lab, format_args!("{id} vmptrst"), insn::vmptrst().map(drop));
    case(
        lab,
        format_args!("{id} vmread"),
        insn::vmread_raw(0x681e).map(drop),
    );
    case(
        lab,
        format_args!("{id} vmwrite"),
        insn::vmwrite_raw(0x681e, 0),
    );
    case(
        lab,
        format_args!("{id} vmlaunch"),
        insn::vmlaunch_expecting_failure(),
    );
    case(
        lab,
        format_args!("{id} vmresume"),
        insn::vmresume_expecting_failure(),
    );
    case(lab, format_args!("{id} vmxoff"), insn::vmxoff());
    case(lab, format_args!("{id} vmcall"), insn::vmcall());
    case(lab, format_args!("{id} invept"), insn::invept(2, [0, 0]));
    case(lab, format_args!("{id} invvpid"), insn::invvpid(2, [0, 0]));
}

/// CR4.VMXE clear, CR0.NE clear.
fn with_registers(lab: &mut Lab) {
    let region = lab.vmx.region.address();
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    // SAFETY: VMX operation is off, so VMXE and NE are free; nothing here uses the FPU's errors.
    unsafe {
        cpu::set_cr4(cr4 & !CR4_VMXE);
        case(lab, format_args!("VMXE clear"), insn::vmxon(&region));
        outside(lab, "VMXE clear");
        cpu::set_cr4(cr4);
        cpu::set_cr0(cr0 & !(1 << 5));
        case(lab, format_args!("NE clear"), insn::vmxon(&region));
        cpu::set_cr0(cr0);
    }
}

/// The operand's bits, and the revision identifier in the region.
fn regions(lab: &mut Lab) {
    let region = lab.vmx.region;
    let revision = lab.caps.revision();
    for bit in (0..12).chain(cpu::maxphyaddr()..64) {
        let pointer = region.address() ^ 1 << bit;
        case(lab, format_args!("bit {bit}"), insn::vmxon(&pointer));
    }
    for bit in 0..32 {
        region.write(0, revision ^ 1 << bit);
        case(
            lab,
            format_args!("revision^{bit}"),
            insn::vmxon(&region.address()),
        );
    }
    region.write(0, revision);
}

/// CR0 and CR4 bits that VMX operation holds.
fn bits_in_operation(lab: &mut Lab) {
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    for (name, value) in [
        ("PE", cr0 & !1),
        ("NE", cr0 & !(1 << 5)),
        ("PG", cr0 & !(1 << 31)),
    ] {
        // Let through, PE or PG clear would be the end; the fixed bits say that it is not.
        let result = rt::vmx_insn!("mov cr0, {v}", v = in(reg) value);
        case(
            lab,
            format_args!("mov cr0, {name} clear"),
            without_flags(result),
        );
    }
    let result = rt::vmx_insn!("mov cr4, {v}", v = in(reg) cr4 & !CR4_VMXE);
    case(
        lab,
        format_args!("mov cr4, VMXE clear"),
        without_flags(result),
    );
    let _ = trap::take();
}

/// MOV to a control register leaves the flags undefined: only its fault is looked at.
fn without_flags(result: Result<(), VmxError>) -> Result<(), VmxError> {
    match result {
        Err(VmxError::Fault(fault)) => Err(VmxError::Fault(fault)),
        _ => Ok(()),
    }
}
