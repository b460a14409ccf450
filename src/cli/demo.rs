//! `estd demo`.

use crate::demo;

#[derive(clap::Args)]
pub(super) struct Demo {
    /// How many devices
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        demo::run(self.devices).await
    }
}
