//! The host state of vmcs12 as it goes into vmcs01: made when L1 changed it, and
//! written at each exit to L1. SDM "Loading Host State".

use umbra_arch::{AccessRights, Cr4, Dr7, Rflags};
use umbra_vmcs::Vmcs12;
use umbra_vmcs::controls::Exit;
use umbra_vmcs::field::{self, Field};

/// Calls a macro with the fields of an image, in the order in which they are written.
#[macro_export]
macro_rules! host_image_fields {
    ($call:ident) => {
        $call! {
            GUEST_CR3, GUEST_CR4, CR4_READ_SHADOW, GUEST_DR7, GUEST_IA32_DEBUGCTL,
            GUEST_IA32_SYSENTER_CS, GUEST_IA32_SYSENTER_ESP, GUEST_IA32_SYSENTER_EIP,
            GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS,
            GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS,
            GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS,
            GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS,
            GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS,
            GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS,
            GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS,
            GUEST_LDTR_SELECTOR, GUEST_LDTR_ACCESS_RIGHTS,
            GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_IDTR_BASE, GUEST_IDTR_LIMIT,
            GUEST_RIP, GUEST_RSP, GUEST_RFLAGS, GUEST_PENDING_DEBUG_EXCEPTIONS,
        }
    };
}

macro_rules! image {
    ($($field:ident),* $(,)?) => {
        /// What each exit to L1 writes into vmcs01, whatever L2 left.
        #[derive(Clone, Copy, Debug)]
        #[allow(non_snake_case, missing_docs)]
        pub struct HostImage {
            $(pub $field: u64,)*
        }

        impl HostImage {
            /// Before there is a vmcs12.
            pub(crate) const EMPTY: Self = Self { $($field: 0,)* };

            /// The fields and their values.
            pub fn each(&self) -> impl Iterator<Item = (Field, u64)> {
                [$((field::$field, self.$field)),*].into_iter()
            }
        }
    };
}

host_image_fields!(image);

impl HostImage {
    /// What the host state and the exit controls of vmcs12 come to.
    pub(crate) fn of(v: &Vmcs12) -> Self {
        let is_64_bit = v.exit(Exit::HOST_ADDRESS_SPACE_SIZE);
        let mask = if is_64_bit { u64::MAX } else { 0xffff_ffff };
        let host_cr4 = v.get(field::HOST_CR4);
        let cr4 = match is_64_bit {
            true => host_cr4 | Cr4::PAE.bits(),
            false => host_cr4 & !Cr4::PCIDE.bits(),
        };
        // A null selector makes the segment unusable, SS in 64-bit mode included;
        // the rest of the rights is then undefined.
        let rights = |selector: u64| {
            let is_null = selector & !3 == 0;
            u64::from(AccessRights::DATA_32.with_unusable(is_null).into_bits())
        };
        let ss = v.get(field::HOST_SS_SELECTOR);
        let ds = v.get(field::HOST_DS_SELECTOR);
        let es = v.get(field::HOST_ES_SELECTOR);
        let fs = v.get(field::HOST_FS_SELECTOR);
        let gs = v.get(field::HOST_GS_SELECTOR);
        Self {
            GUEST_CR3: v.get(field::HOST_CR3),
            GUEST_CR4: cr4,
            CR4_READ_SHADOW: cr4,
            GUEST_DR7: Dr7::FIXED.bits(),
            GUEST_IA32_DEBUGCTL: 0,
            GUEST_IA32_SYSENTER_CS: v.get(field::HOST_IA32_SYSENTER_CS),
            GUEST_IA32_SYSENTER_ESP: v.get(field::HOST_IA32_SYSENTER_ESP),
            GUEST_IA32_SYSENTER_EIP: v.get(field::HOST_IA32_SYSENTER_EIP),
            GUEST_CS_SELECTOR: v.get(field::HOST_CS_SELECTOR),
            GUEST_CS_BASE: 0,
            GUEST_CS_LIMIT: 0xffff_ffff,
            GUEST_CS_ACCESS_RIGHTS: match is_64_bit {
                true => AccessRights::CODE_64.into_bits().into(),
                false => AccessRights::CODE_32.into_bits().into(),
            },
            GUEST_SS_SELECTOR: ss,
            GUEST_SS_BASE: 0,
            GUEST_SS_LIMIT: 0xffff_ffff,
            GUEST_SS_ACCESS_RIGHTS: rights(ss),
            GUEST_DS_SELECTOR: ds,
            GUEST_DS_BASE: 0,
            GUEST_DS_LIMIT: 0xffff_ffff,
            GUEST_DS_ACCESS_RIGHTS: rights(ds),
            GUEST_ES_SELECTOR: es,
            GUEST_ES_BASE: 0,
            GUEST_ES_LIMIT: 0xffff_ffff,
            GUEST_ES_ACCESS_RIGHTS: rights(es),
            GUEST_FS_SELECTOR: fs,
            GUEST_FS_BASE: v.get(field::HOST_FS_BASE),
            GUEST_FS_LIMIT: 0xffff_ffff,
            GUEST_FS_ACCESS_RIGHTS: rights(fs),
            GUEST_GS_SELECTOR: gs,
            GUEST_GS_BASE: v.get(field::HOST_GS_BASE),
            GUEST_GS_LIMIT: 0xffff_ffff,
            GUEST_GS_ACCESS_RIGHTS: rights(gs),
            GUEST_TR_SELECTOR: v.get(field::HOST_TR_SELECTOR),
            GUEST_TR_BASE: v.get(field::HOST_TR_BASE),
            GUEST_TR_LIMIT: 0x67,
            GUEST_TR_ACCESS_RIGHTS: AccessRights::TSS_BUSY.into_bits().into(),
            GUEST_LDTR_SELECTOR: 0,
            GUEST_LDTR_ACCESS_RIGHTS: AccessRights::UNUSABLE.into_bits().into(),
            GUEST_GDTR_BASE: v.get(field::HOST_GDTR_BASE),
            GUEST_GDTR_LIMIT: 0xffff,
            GUEST_IDTR_BASE: v.get(field::HOST_IDTR_BASE),
            GUEST_IDTR_LIMIT: 0xffff,
            GUEST_RIP: v.get(field::HOST_RIP) & mask,
            GUEST_RSP: v.get(field::HOST_RSP) & mask,
            GUEST_RFLAGS: Rflags::FIXED.bits(),
            GUEST_PENDING_DEBUG_EXCEPTIONS: 0,
        }
    }
}
