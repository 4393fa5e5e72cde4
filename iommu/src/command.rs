//! What a unit is told to do, and that it did not.

/// What a unit was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// To flush its write buffers.
    FlushWriteBuffers,
    /// To take a root table.
    TakeRootTable,
    /// To translate.
    Translate,
    /// To stop remapping interrupts, which the firmware had begun.
    StopRemappingInterrupts,
    /// To switch its invalidation queue on or off.
    SwitchQueue,
    /// To forget contexts.
    InvalidateContexts,
    /// To forget translations.
    InvalidateTranslations,
    /// To work off its invalidation queue.
    Queue,
    /// To protect or release its protected-memory regions.
    ProtectMemory,
}

/// A unit did not finish what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck(pub Command);

impl core::fmt::Display for Stuck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.0 {
            Command::FlushWriteBuffers => "it does not flush its write buffers",
            Command::TakeRootTable => "it does not take its root table",
            Command::Translate => "it does not begin to translate",
            Command::StopRemappingInterrupts => "it does not stop remapping interrupts",
            Command::SwitchQueue => "it does not switch its invalidation queue",
            Command::InvalidateContexts => "it does not forget contexts",
            Command::InvalidateTranslations => "it does not forget translations",
            Command::Queue => "it does not work off its invalidation queue",
            Command::ProtectMemory => "it does not switch its protected memory",
        })
    }
}
