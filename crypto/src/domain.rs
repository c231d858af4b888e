//! The registry of domain tags: what is hashed for one purpose can never pass for another (PROTOCOL §3).
//!
//! Every digest starts with the tag of its domain. A tag names the program, the version of its formats and the kind of
//! thing that follows, and ends with a zero byte, which occurs nowhere else in it: so no tag is a prefix of another.

/// What a digest is made of, and so what a signature over it can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// The genesis file: its digest is the name of the cluster.
    Genesis,
    /// A replica's statement that it accepts a batch for a slot in a view.
    Prepare,
    /// A replica's statement that it holds a prepared certificate.
    Commit,
    /// A replica's statement about the root of its state after a slot.
    Checkpoint,
    /// A replica's statement that it left the views below.
    ViewChange,
    /// A new primary's statement about what its view begins with.
    NewView,
    /// A client's request.
    Request,
    /// The body of a request, or bytes in a batch's place that are none.
    Body,
    /// A batch, by its requests' bodies and signatures.
    Batch,
    /// The whole of the replicated state, as a checkpoint names it.
    State,
    /// The sessions of the clients, part of the state.
    Session,
    /// One entry of the application's store.
    Entry,
    /// One bucket of entries: a leaf of the Merkle tree.
    Bucket,
    /// An inner node of a Merkle tree.
    Node,
    /// A connection's proof of the key behind it.
    Attach,
    /// The configuration of an epoch.
    Configuration,
    /// What came of one request.
    Results,
}

impl Domain {
    /// Every domain, in the order of declaration.
    pub const ALL: [Self; 17] = [
        Self::Genesis,
        Self::Prepare,
        Self::Commit,
        Self::Checkpoint,
        Self::ViewChange,
        Self::NewView,
        Self::Request,
        Self::Body,
        Self::Batch,
        Self::State,
        Self::Session,
        Self::Entry,
        Self::Bucket,
        Self::Node,
        Self::Attach,
        Self::Configuration,
        Self::Results,
    ];

    /// The bytes that every digest of this domain starts with; at most 32.
    pub const fn tag(self) -> &'static [u8] {
        match self {
            Self::Genesis => b"quorate/1/genesis\0",
            Self::Prepare => b"quorate/1/prepare\0",
            Self::Commit => b"quorate/1/commit\0",
            Self::Checkpoint => b"quorate/1/checkpoint\0",
            Self::ViewChange => b"quorate/1/view-change\0",
            Self::NewView => b"quorate/1/new-view\0",
            Self::Request => b"quorate/1/request\0",
            Self::Body => b"quorate/1/body\0",
            Self::Batch => b"quorate/1/batch\0",
            Self::State => b"quorate/1/state\0",
            Self::Session => b"quorate/1/session\0",
            Self::Entry => b"quorate/1/entry\0",
            Self::Bucket => b"quorate/1/bucket\0",
            Self::Node => b"quorate/1/node\0",
            Self::Attach => b"quorate/1/attach\0",
            Self::Configuration => b"quorate/1/configuration\0",
            Self::Results => b"quorate/1/results\0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Domain;

    #[test]
    fn the_list_of_all_domains_is_in_order_of_declaration_and_ends_with_the_last() {
        for (position, domain) in Domain::ALL.into_iter().enumerate() {
            assert_eq!(domain as usize, position);
        }
        // Whoever adds a domain behind the last one must come past here.
        assert_eq!(Domain::ALL.last(), Some(&Domain::Results));
    }

    #[test]
    fn no_tag_equals_another_or_is_a_prefix_of_it() {
        for (position, domain) in Domain::ALL.into_iter().enumerate() {
            for other in Domain::ALL.into_iter().skip(position + 1) {
                assert!(!domain.tag().starts_with(other.tag()), "{domain:?} starts with {other:?}");
                assert!(!other.tag().starts_with(domain.tag()), "{other:?} starts with {domain:?}");
            }
        }
    }

    #[test]
    fn every_tag_names_program_and_version_and_has_its_only_zero_byte_at_its_end() {
        for domain in Domain::ALL {
            let tag = domain.tag();
            assert!(tag.starts_with(b"quorate/1/"));
            assert!(tag.len() <= 32);
            assert_eq!(tag.iter().position(|&byte| byte == 0), Some(tag.len() - 1), "{domain:?}");
        }
    }
}
