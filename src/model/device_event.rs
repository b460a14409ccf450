//! What a device says of a step of its rotation. It is kept as it is said, and never overrides what
//! the ledger has seen.

use serde::Serialize;

/// An event of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceEvent {
    /// The device's own id for it.
    pub id: String,
    /// When it happened, by the device's clock, as the device writes it.
    pub device_time: String,
    /// The rotation that the device names.
    pub rotation: String,
    /// Which step.
    pub step: String,
    /// What it is about: the target that the device runs.
    pub target: String,
    /// Of which version.
    pub version: String,
    /// Whether it went well, if the device says so.
    pub success: Option<bool>,
    /// What else the device says.
    pub details: String,
}

/// The agent says this after a failed rotation as well, and never after one that went well.
const COMPLETED: &str = "CertRotationCompleted";

impl DeviceEvent {
    /// Whether it says that a step went wrong.
    pub fn is_failed_step(&self) -> bool {
        self.success == Some(false) && !self.is_of_the_end()
    }

    /// Whether it says that the rotation is over, which is known better by whether the device uses its
    /// new key.
    pub fn is_of_the_end(&self) -> bool {
        self.step == COMPLETED
    }
}
