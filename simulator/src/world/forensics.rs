//! What all logs of a world tell of who is to blame. (PROTOCOL §15)

use quorate_protocol::forensics::{Findings, Forensics};
use quorate_protocol::number::ReplicaId;

use super::World;

impl World {
    /// What follows from the logs of these replicas, as they stand.
    pub(crate) fn forensics(&mut self, replicas: impl IntoIterator<Item = ReplicaId>) -> Findings {
        let mut forensics = Forensics::new(&self.configuration);
        for replica in replicas {
            let records = self.hosts[replica.index()].disk.log.recover(&self.configuration);
            for (_, record) in &records {
                forensics.read(record, &mut self.notary);
            }
        }
        forensics.conclude()
    }
}
