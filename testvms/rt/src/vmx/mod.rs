//! VMX operation as L1 uses it: the instructions, the entry stub, EPT, one virtual machine.

pub mod ept;
pub mod exit;
pub mod insn;
pub mod stub;
pub mod vm;

pub use crate::{vmx_insn, vmx_insn_movss};
pub use exit::Exit;
pub use insn::VmxError;
pub use vm::{Outcome, Vm};

use crate::stop::Stop;
use crate::{cpu, page::Page};
use umbra_arch::msr;
use umbra_vmcs::VmxCaps;

/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// IA32_FEATURE_CONTROL: bit 0 lock, bit 2 VMXON outside SMX.
const FEATURE_CONTROL: u32 = 0x3a;

/// VMX operation of this CPU: the VMXON region and what the capability MSRs say.
pub struct Vmx {
    /// The capability MSRs.
    pub caps: VmxCaps,
    /// The VMXON region.
    pub region: Page,
}

impl Vmx {
    /// Reads the capabilities and prepares a VMXON region. `Err` says in words why the CPU cannot.
    ///
    /// SDM "Discovering Support for VMX", "Enabling and Entering VMX Operation".
    pub fn prepare() -> Result<Self, &'static str> {
        if cpu::cpuid(1, 0).ecx & 1 << 5 == 0 {
            return Err("this CPU has no VMX");
        }
        if !Self::allow() {
            return Err("the firmware has locked VMX off");
        }
        let caps = VmxCaps::read(cpu::rdmsr);
        let region = Page::alloc(1);
        region.write(0, caps.revision());
        Ok(Self { caps, region })
    }

    /// As [`Vmx::prepare`], for a program whose L2 needs EPT.
    pub fn prepare_with_ept() -> Result<Self, &'static str> {
        let vmx = Self::prepare()?;
        if vmx.has_ept() {
            Ok(vmx)
        } else {
            Err("this CPU has no EPT")
        }
    }

    /// Enters VMX operation.
    pub fn enter(&self) -> Result<(), Stop> {
        self.enable();
        self.on().map_err(|error| Stop::Vmx("VMXON", error))
    }

    /// Leaves VMX operation on this CPU.
    pub fn leave() -> Result<(), Stop> {
        insn::vmxoff().map_err(|error| Stop::Vmx("VMXOFF", error))?;
        // SAFETY: outside VMX operation the bit has no use here.
        unsafe { cpu::set_cr4(cpu::cr4() & !CR4_VMXE) };
        Ok(())
    }

    /// Has IA32_FEATURE_CONTROL allow VMXON outside SMX on this CPU; `false` where it is locked off.
    fn allow() -> bool {
        let control = cpu::rdmsr(FEATURE_CONTROL);
        if control & 1 == 0 {
            // SAFETY: locks VMX on, which changes nothing for running code.
            unsafe { cpu::wrmsr(FEATURE_CONTROL, control | 5) };
        }
        control & 1 == 0 || control & 4 != 0
    }

    /// Allows VMX operation on this CPU, and sets CR4.VMXE and the fixed bits of CR0 and CR4.
    pub fn enable(&self) {
        Self::allow();
        // SAFETY: the fixed bits are PE, NE, PG and VMXE, which long mode has or does not notice.
        unsafe {
            cpu::set_cr0((cpu::cr0() | self.caps.cr0_fixed0) & self.caps.cr0_fixed1);
            cpu::set_cr4((cpu::cr4() | self.caps.cr4_fixed0) & self.caps.cr4_fixed1);
        }
    }

    /// Executes VMXON with this region.
    pub fn on(&self) -> Result<(), VmxError> {
        insn::vmxon(&self.region.address())
    }

    /// A page prepared to be a VMCS: zeroed, with the revision identifier.
    pub fn new_vmcs(&self) -> Page {
        let page = Page::alloc(1);
        page.write(0, self.caps.revision());
        page
    }

    /// Reads a capability MSR that may be missing.
    pub fn has_ept(&self) -> bool {
        self.caps
            .offers_proc2(umbra_vmcs::controls::Proc2::ENABLE_EPT)
    }
}

/// The numbers of the capability MSRs, for tests that print them.
pub const CAPABILITY_MSRS: [u32; 20] = [
    msr::IA32_VMX_BASIC,
    msr::IA32_VMX_PINBASED_CTLS,
    msr::IA32_VMX_PROCBASED_CTLS,
    msr::IA32_VMX_EXIT_CTLS,
    msr::IA32_VMX_ENTRY_CTLS,
    msr::IA32_VMX_MISC,
    msr::IA32_VMX_CR0_FIXED0,
    msr::IA32_VMX_CR0_FIXED1,
    msr::IA32_VMX_CR4_FIXED0,
    msr::IA32_VMX_CR4_FIXED1,
    msr::IA32_VMX_VMCS_ENUM,
    msr::IA32_VMX_PROCBASED_CTLS2,
    msr::IA32_VMX_EPT_VPID_CAP,
    msr::IA32_VMX_TRUE_PINBASED_CTLS,
    msr::IA32_VMX_TRUE_PROCBASED_CTLS,
    msr::IA32_VMX_TRUE_EXIT_CTLS,
    msr::IA32_VMX_TRUE_ENTRY_CTLS,
    msr::IA32_VMX_VMFUNC,
    msr::IA32_VMX_PROCBASED_CTLS3,
    msr::IA32_VMX_EXIT_CTLS2,
];
