//! A CPU's VMX state as L1 sees it.

use umbra_arch::Gpa1;
use umbra_ept::caps::Caps as EptCaps;
use umbra_ept::ept02::Pool;
use umbra_ept::vpid::Vpids;
use umbra_vmcs::VmxCaps;
use umbra_vmcs::field::FieldSet;
use umbra_vmcs::rules::{CpuFacts, Rule};

use crate::blame::blame;
use crate::paging::Walked;
use crate::slots::{SlotId, Slots};

/// VMX operation of L1 on one CPU. SDM "VMX Operation".
#[derive(Debug)]
pub(crate) enum Vmx {
    /// L1 is outside it.
    Off,
    /// L1 runs, as a hypervisor.
    Root(Root),
    /// L2 runs.
    NonRoot(NonRoot),
}

/// What belongs to VMX root operation.
#[derive(Debug)]
pub(crate) struct Root {
    /// The VMXON pointer.
    pub vmxon: Gpa1,
    /// The current VMCS.
    pub current: Option<SlotId>,
    /// An INIT arrived, which VMX root operation blocks.
    pub init_latched: bool,
}

/// What belongs to VMX non-root operation.
#[derive(Debug)]
pub(crate) struct NonRoot {
    /// The VMXON pointer.
    pub vmxon: Gpa1,
    /// The current VMCS, whose guest runs.
    pub current: SlotId,
    /// Where the VMX-preemption timer of L2 runs out, in units of
    /// 2^shift ticks since the TSC was 0 (the shift is in IA32_VMX_MISC).
    pub timer_end: Option<u64>,
    /// L2 has run since L1's VM entry: what follows is not that entry any more.
    pub has_run: bool,
    /// An INIT that root operation had blocked waits for the event of the VM entry
    /// to be delivered, or for the end of the wait-for-SIPI state.
    pub init_waits: bool,
}

/// One CPU's nested-VMX state.
#[derive(Debug)]
pub struct Nested {
    /// The capabilities L1 is shown.
    pub caps: VmxCaps,
    /// The fields L1's VMCSs have.
    pub fields: FieldSet,
    /// The CPU L1 is shown.
    pub cpu: CpuFacts,
    /// 1 GiB pages in L1's own page tables.
    pub gib_pages: bool,
    /// The walk of L1's page tables for its last memory operand.
    pub(crate) walked: Walked,
    /// The vmcs12s at hand.
    pub slots: Slots,
    /// vmcs02s can be lent to L1 (see [`lend`](crate::lend)).
    pub can_lend: bool,
    /// The shadow VMCS of L1's whose fields L0's own shadow VMCS holds.
    pub(crate) shadow: Option<Gpa1>,
    pub(crate) vmx: Vmx,
    /// IA32_EFER.LMA of L1 at its VMXON. VMX operation fixes CR0.PG at 1, so that it
    /// stays: SDM "Restrictions on VMX Operation".
    pub(crate) in_ia32e_mode: bool,
    /// The ept02 caches.
    pub pool: Pool,
    pub(crate) vpids: Vpids,
    /// What the hardware's EPT can do, as far as L1 is shown it.
    pub(crate) ept_caps: EptCaps,
    /// The rule that L1's last failing VM entry broke.
    pub(crate) broken: Option<&'static Rule>,
}

impl Nested {
    /// A CPU outside VMX operation. `fields` are those that the CPU below was
    /// found to have; only what `caps` offers of them is shown to L1.
    pub fn new(
        caps: VmxCaps,
        fields: FieldSet,
        cpu: CpuFacts,
        gib_pages: bool,
        slots: Slots,
    ) -> Self {
        let fields = crate::offer::fields(&caps, &fields);
        Self {
            caps,
            fields,
            cpu,
            gib_pages,
            pool: Pool::new(),
            vpids: Vpids::new(),
            ept_caps: EptCaps::from_msr(caps.ept_vpid, cpu.physical_address_bits),
            broken: None,
            walked: Walked::new(),
            slots,
            can_lend: false,
            shadow: None,
            vmx: Vmx::Off,
            in_ia32e_mode: false,
        }
    }

    /// Whether L1 is in VMX operation (root or non-root).
    #[inline]
    pub const fn in_vmx_operation(&self) -> bool {
        !matches!(self.vmx, Vmx::Off)
    }

    /// Whether L2 is running.
    #[inline]
    pub const fn in_l2(&self) -> bool {
        matches!(self.vmx, Vmx::NonRoot(_))
    }

    /// The VMX root operation that L1 is in. L1 executes an instruction there;
    /// where that was not made sure of, L0 is to blame.
    #[inline]
    pub(crate) fn root(&mut self) -> &mut Root {
        match &mut self.vmx {
            Vmx::Root(root) => root,
            _ => blame("L1 is not in VMX root operation"),
        }
    }

    /// The VMX non-root operation that L2 exited from.
    #[inline]
    pub(crate) fn non_root(&mut self) -> &mut NonRoot {
        match &mut self.vmx {
            Vmx::NonRoot(non_root) => non_root,
            _ => blame("L2 does not run"),
        }
    }

    /// L2 of this slot runs from now on.
    pub(crate) fn begin_l2(&mut self, current: SlotId, timer_end: Option<u64>) {
        let root = self.root();
        let (vmxon, init_waits) = (root.vmxon, root.init_latched);
        self.vmx = Vmx::NonRoot(NonRoot {
            vmxon,
            current,
            timer_end,
            has_run: false,
            init_waits,
        });
    }

    /// L1 runs from now on, L2 having exited.
    pub(crate) fn end_l2(&mut self) {
        let NonRoot {
            vmxon,
            current,
            init_waits,
            ..
        } = *self.non_root();
        self.vmx = Vmx::Root(Root {
            vmxon,
            current: Some(current),
            // Blocked again.
            init_latched: init_waits,
        });
    }

    /// An INIT arrived while L1 was in VMX root operation: it waits there until
    /// L1 enters L2, which exits at once, or leaves VMX operation.
    pub fn latch_init(&mut self) {
        self.root().init_latched = true;
    }

    /// The rule that L1's last failing VM entry broke, once.
    pub fn take_broken_rule(&mut self) -> Option<&'static Rule> {
        self.broken.take()
    }

    /// The VMXON pointer; `None` outside VMX operation.
    pub(crate) const fn vmxon_pointer(&self) -> Option<Gpa1> {
        match &self.vmx {
            Vmx::Off => None,
            Vmx::Root(root) => Some(root.vmxon),
            Vmx::NonRoot(non_root) => Some(non_root.vmxon),
        }
    }

    /// The current VMCS.
    #[inline]
    pub(crate) const fn current(&self) -> Option<SlotId> {
        match &self.vmx {
            Vmx::Off => None,
            Vmx::Root(root) => root.current,
            Vmx::NonRoot(non_root) => Some(non_root.current),
        }
    }

    /// The address of the current VMCS, as VMPTRST stores it.
    pub fn current_pointer(&mut self) -> u64 {
        match self.current() {
            Some(id) => self.slots.get(id).gpa().raw(),
            None => u64::MAX,
        }
    }
}
