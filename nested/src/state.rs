//! A CPU's VMX state as L1 sees it.

use umbra_ept::caps::Caps as EptCaps;
use umbra_ept::ept02::Pool;
use umbra_ept::vpid::Vpids;
use umbra_vmcs::VmxCaps;
use umbra_vmcs::field::FieldSet;
use umbra_vmcs::rules::{self, CpuFacts, Rule, Runs};

use crate::slots::Slots;

/// One CPU's nested-VMX state.
#[derive(Debug)]
pub struct Nested {
    /// The capabilities L1 is shown.
    pub caps: VmxCaps,
    /// The fields L1's VMCSs have.
    pub fields: FieldSet,
    /// The CPU L1 is shown.
    pub cpu: CpuFacts,
    /// The fields of the groups of rules that run at each VM entry.
    pub(crate) always_read: FieldSet,
    /// 1 GiB pages in L1's own page tables.
    pub gib_pages: bool,
    /// The vmcs12s at hand.
    pub slots: Slots,
    /// The VMXON pointer; `None` outside VMX operation.
    pub(crate) vmxon: Option<u64>,
    /// The current VMCS.
    pub(crate) current: Option<usize>,
    /// L2 is running.
    pub(crate) in_l2: bool,
    /// Where the VMX-preemption timer of L2 runs out, in units of
    /// 2^`timer_shift` ticks since the TSC was 0.
    pub(crate) timer_end: Option<u64>,
    /// The CPU has stored its TSC at the exit of L2 that is being dealt with.
    pub(crate) has_exit_tsc: bool,
    /// The ept02 caches.
    pub pool: Pool,
    pub(crate) vpids: Vpids,
    /// What the hardware's EPT can do, as far as L1 is shown it.
    pub(crate) ept_caps: EptCaps,
    /// The rule that L1's last failing VM entry broke.
    pub(crate) broken: Option<&'static Rule>,
    /// An INIT arrived while L1 was in VMX root operation, which blocks it.
    pub(crate) init_latched: bool,
}

impl Nested {
    /// A CPU outside VMX operation. `fields` are those that the CPU below was
    /// found to have; only what `caps` offers of them is shown to L1.
    pub fn new(caps: VmxCaps, fields: FieldSet, cpu: CpuFacts, gib_pages: bool) -> Self {
        Self {
            caps,
            fields: crate::offer::fields(&caps, &fields),
            cpu,
            always_read: rules::groups()
                .filter(|g| g.runs == Runs::Always)
                .fold(FieldSet::EMPTY, |all, g| all.union(g.reads)),
            gib_pages,
            pool: Pool::new(),
            vpids: Vpids::new(),
            ept_caps: EptCaps::from_msr(caps.ept_vpid, cpu.physical_address_bits),
            broken: None,
            slots: Slots::new(),
            vmxon: None,
            current: None,
            in_l2: false,
            timer_end: None,
            has_exit_tsc: false,
            init_latched: false,
        }
    }

    /// Whether L1 is in VMX operation (root or non-root).
    #[inline]
    pub const fn in_vmx_operation(&self) -> bool {
        self.vmxon.is_some()
    }

    /// Whether L2 is running.
    #[inline]
    pub const fn in_l2(&self) -> bool {
        self.in_l2
    }

    /// An INIT arrived while L1 was in VMX root operation: it waits there until
    /// L1 enters L2, which exits at once, or leaves VMX operation.
    pub fn latch_init(&mut self) {
        self.init_latched = true;
    }

    /// The rule that L1's last failing VM entry broke, once.
    pub fn take_broken_rule(&mut self) -> Option<&'static Rule> {
        self.broken.take()
    }

    /// The address of the current VMCS, as VMPTRST stores it.
    pub fn current_pointer(&mut self) -> u64 {
        match self.current {
            Some(number) => self.slots.get(number).gpa.unwrap_or(u64::MAX),
            None => u64::MAX,
        }
    }
}
