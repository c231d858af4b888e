//! The folder that a testnet lives in: a temporary one, a new one, or that of an earlier testnet.

use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::configuration::network::{Network, Plan, is_network};

/// A testnet's folder.
#[derive(Debug)]
pub(super) struct Home {
    network: Network,
    temporary: Option<TempDir>,
}

impl Home {
    /// Opens the testnet in `folder`, or founds one there, or in a temporary folder, as planned.
    pub(super) fn open(folder: Option<&Path>, plan: impl FnOnce() -> anyhow::Result<Plan>) -> anyhow::Result<Self> {
        let Some(folder) = folder else {
            let temporary = tempfile::Builder::new().prefix("quorate-testnet-").tempdir();
            let temporary = temporary.context("cannot make a temporary folder")?;
            let network = Network::create(temporary.path(), plan()?)?;
            return Ok(Self { network, temporary: Some(temporary) });
        };
        let folder = std::path::absolute(folder).with_context(|| format!("cannot find {}", folder.display()))?;
        let network = if is_network(&folder)? { Network::open(&folder)? } else { Network::create(&folder, plan()?)? };
        Ok(Self { network, temporary: None })
    }

    /// The cluster in it.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Whether it is removed at the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Removes the folder if it is temporary. No process may use it any more.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match self.temporary {
            Some(temporary) => {
                let path = temporary.path().to_owned();
                temporary.close().with_context(|| format!("cannot remove {}", path.display()))
            }
            None => Ok(()),
        }
    }
}
