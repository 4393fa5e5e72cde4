//! What the rules have to know of the CPU beside its VMX capabilities.

/// Facts about the CPU that L1 sees, constant while it runs.
///
/// The `..._writable` masks have the bits of an MSR that are not reserved on
/// this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// The physical-address width (CPUID 80000008H EAX\[7:0\]).
    pub physical_address_bits: u8,
    /// The largest linear-address width: 48 or 57.
    pub linear_address_bits: u8,
    /// Linear-address masking: CR3 bits 62:61 may be 1.
    pub lam: bool,
    /// Restricted transactional memory.
    pub rtm: bool,
    /// SGX.
    pub sgx: bool,
    /// OS bus-lock detection.
    pub bus_lock_detection: bool,
    /// Some processors refuse to inject an NMI while STI blocks.
    pub nmi_needs_no_sti_blocking: bool,
    /// IA32_EFER.
    pub efer_writable: u64,
    /// IA32_DEBUGCTL.
    pub debugctl_writable: u64,
    /// IA32_PERF_GLOBAL_CTRL.
    pub perf_global_ctrl_writable: u64,
    /// IA32_RTIT_CTL.
    pub rtit_ctl_writable: u64,
    /// IA32_LBR_CTL.
    pub lbr_ctl_writable: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl_writable: u64,
    /// IA32_S_CET.
    pub s_cet_writable: u64,
}

/// The registers that CPUID leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// `bits` when the bit of the register is 1.
const fn bits_if(register: u32, bit: u32, bits: u64) -> u64 {
    if register & 1 << bit != 0 { bits } else { 0 }
}

/// The `n` low bits.
const fn low_bits(n: u32) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

impl CpuFacts {
    /// What CPUID tells. `cpuid` takes a leaf and a subleaf; it is asked only
    /// for leaves that the CPU has.
    ///
    /// `perf_capabilities` is IA32_PERF_CAPABILITIES, 0 on a CPU without it.
    pub fn from_cpuid(
        mut cpuid: impl FnMut(u32, u32) -> CpuidLeaf,
        perf_capabilities: u64,
    ) -> Self {
        let basic_max = cpuid(0, 0).eax;
        let extended_max = cpuid(0x8000_0000, 0).eax;
        let none = CpuidLeaf::default();
        let mut leaf = |n: u32, sub: u32| {
            let max = if n >= 0x8000_0000 {
                extended_max
            } else {
                basic_max
            };
            if n <= max { cpuid(n, sub) } else { none }
        };
        let one = leaf(1, 0);
        let seven = leaf(7, 0);
        let seven_1 = if seven.eax >= 1 { leaf(7, 1) } else { none };
        let seven_2 = if seven.eax >= 2 { leaf(7, 2) } else { none };
        let perfmon = leaf(0xa, 0);
        let has_pt = seven.ebx & 1 << 25 != 0;
        let pt = if has_pt { leaf(0x14, 0) } else { none };
        let pt_1 = if pt.eax >= 1 { leaf(0x14, 1) } else { none };
        let extended = leaf(0x8000_0001, 0);
        let widths = leaf(0x8000_0008, 0);

        let rtm = seven.ebx & 1 << 11 != 0;
        let bus_lock_detection = seven.ecx & 1 << 24 != 0;
        let perfmon_version = perfmon.eax & 0xff;

        // LBR, BTF; the rest as enumerated. SDM "IA32_DEBUGCTL MSR".
        let debugctl = 0b11
            | if bus_lock_detection { 1 << 2 } else { 0 }
            | bits_if(one.edx, 21, 0b111 << 6)
            | bits_if(one.ecx, 4, 0b11 << 9)
            | if perfmon_version >= 2 { 0b11 << 11 } else { 0 }
            | (perf_capabilities >> 12 & 1) << 14
            | if rtm { 1 << 15 } else { 0 };

        let perf_global = if perfmon_version >= 2 {
            low_bits(perfmon.eax >> 8 & 0xff)
                | low_bits(perfmon.edx & 0x1f) << 32
                | (perf_capabilities >> 15 & 1) << 48
        } else {
            0
        };

        // SDM "IA32_RTIT_CTL MSR".
        let rtit = if has_pt {
            let ranges = pt_1.eax & 7;
            0x2c0d
                | bits_if(pt.ebx, 0, 1 << 7)
                | bits_if(pt.ebx, 1, 1 << 1 | 0xf << 19 | 0xf << 24)
                | bits_if(pt.ebx, 3, 1 << 9 | 0xf << 14)
                | bits_if(pt.ebx, 4, 1 << 5 | 1 << 12)
                | bits_if(pt.ebx, 5, 1 << 4)
                | bits_if(pt.ebx, 6, 1 << 56)
                | bits_if(pt.ebx, 7, 1 << 31)
                | bits_if(pt.ebx, 8, 1 << 55)
                | bits_if(pt.ecx, 0, 1 << 8)
                | bits_if(pt.ecx, 3, 1 << 6)
                | low_bits(4 * ranges.min(4)) << 32
        } else {
            0
        };

        let spec_ctrl = bits_if(seven.edx, 26, 1)
            | bits_if(seven.edx, 27, 1 << 1)
            | bits_if(seven.edx, 31, 1 << 2)
            | bits_if(seven_2.edx, 0, 1 << 7)
            | bits_if(seven_2.edx, 1, 0b11 << 3)
            | bits_if(seven_2.edx, 2, 0b11 << 5)
            | bits_if(seven_2.edx, 3, 1 << 8)
            | bits_if(seven_2.edx, 4, 1 << 10);

        let s_cet = bits_if(seven.ecx, 7, 0b11) | bits_if(seven.edx, 20, !0 << 10 | 0b1111 << 2);

        Self {
            // A CPU that does not tell has 36 bits.
            physical_address_bits: match widths.eax as u8 {
                0 => 36,
                n => n.min(52),
            },
            linear_address_bits: if seven.ecx & 1 << 16 != 0 { 57 } else { 48 },
            lam: seven_1.eax & 1 << 26 != 0,
            rtm,
            sgx: seven.ebx & 1 << 2 != 0,
            bus_lock_detection,
            nmi_needs_no_sti_blocking: true,
            efer_writable: bits_if(extended.edx, 11, 1)
                | bits_if(extended.edx, 20, 1 << 11)
                | bits_if(extended.edx, 29, 1 << 8 | 1 << 10),
            debugctl_writable: debugctl,
            perf_global_ctrl_writable: perf_global,
            rtit_ctl_writable: rtit,
            lbr_ctl_writable: bits_if(seven.edx, 19, 0x007f_000f),
            spec_ctrl_writable: spec_ctrl,
            s_cet_writable: s_cet,
        }
    }

    /// The bits that a physical address may have.
    #[inline(always)]
    pub const fn physical_mask(&self) -> u64 {
        low_bits(self.physical_address_bits as u32)
    }

    /// Whether the address is canonical for a linear-address width: bits from
    /// `bits - 1` up are all equal. A width out of range counts as 48.
    #[inline(always)]
    pub const fn canonical_for(address: u64, bits: u8) -> bool {
        let unused = if bits == 57 { 64 - 57 } else { 64 - 48 };
        ((address << unused) as i64 >> unused) as u64 == address
    }

    /// Whether the address is canonical for the largest linear-address width.
    #[inline(always)]
    pub const fn canonical(&self, address: u64) -> bool {
        Self::canonical_for(address, self.linear_address_bits)
    }

    /// Whether the bits beyond the linear-address width are all equal: one bit
    /// less than canonical asks for.
    #[inline(always)]
    pub const fn upper_bits_equal(&self, address: u64) -> bool {
        let width = if self.linear_address_bits == 57 {
            57
        } else {
            48
        };
        let upper = address >> width;
        upper == 0 || upper == u64::MAX >> width
    }

    /// Whether CR3 may hold the value. SDM "Checks on Host Control Registers,
    /// MSRs, and SSP" and "Checks on Guest Control Registers, Debug Registers,
    /// and MSRs".
    #[inline(always)]
    pub const fn cr3_valid(&self, cr3: u64) -> bool {
        let lam = if self.lam { 0b11 << 61 } else { 0 };
        cr3 & !(self.physical_mask() | lam) == 0
    }
}
