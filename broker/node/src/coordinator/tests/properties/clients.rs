//! What the members do, and what they believe of the answers.

use super::*;

impl Play {
    pub(super) fn answered(&mut self, asked: &Asked, reply: GroupReply) {
        let kind = match &reply {
            GroupReply::Joined(_) => "Joined".to_owned(),
            GroupReply::Synced(_) => "Synced".to_owned(),
            GroupReply::Committed(_) => "Committed".to_owned(),
            GroupReply::Offsets(_) => "Offsets".to_owned(),
            GroupReply::Deleted => "Deleted".to_owned(),
            GroupReply::Refused(error) => format!("{error:?}"),
            _ => "other".to_owned(),
        };
        *self.seen.entry(kind).or_default() += 1;
        match (asked, reply) {
            (Asked::Join { client }, GroupReply::MemberIdRequired { member }) => {
                self.clients[*client].member = member
            }
            (Asked::Join { client }, GroupReply::Joined(joined)) => self.joined(*client, joined),
            (
                Asked::Sync {
                    generation, name, ..
                },
                GroupReply::Synced(synced),
            ) => {
                let share = String::from_utf8(synced.assignment).unwrap();
                assert!(
                    share.is_empty() || share == format!("{generation}:{name}"),
                    "{name} of {generation} got {share}"
                );
            }
            (
                Asked::Fetch {
                    expected: Some(expected),
                },
                GroupReply::Offsets(offsets),
            ) => {
                let shown: BTreeMap<_, _> = offsets
                    .into_iter()
                    .map(|offset| ((offset.topic, offset.partition), offset.offset))
                    .collect();
                assert_eq!(
                    &shown, expected,
                    "offsets that the committed log does not hold"
                );
            }
            (
                Asked::Join { client }
                | Asked::Sync { client, .. }
                | Asked::Other {
                    client: Some(client),
                },
                refused,
            ) => {
                self.refused(*client, &refused);
            }
            _ => {}
        }
    }

    pub(super) fn joined(&mut self, client: usize, joined: crate::group::Joined) {
        if joined.generation < self.generation {
            assert!(
                self.statics,
                "a generation falls where nobody deletes groups"
            );
            self.leaders.clear();
        }
        self.generation = joined.generation;
        if !self.statics {
            let leader = self
                .leaders
                .entry(joined.generation)
                .or_insert_with(|| joined.leader.clone());
            assert_eq!(*leader, joined.leader, "a generation has two leaders");
        }
        assert_eq!(
            joined.members.is_empty(),
            joined.leader != joined.member,
            "only the leader sees the others"
        );
        let client = &mut self.clients[client];
        client.member = joined.member;
        client.generation = joined.generation;
        (client.joined, client.synced) = (true, false);
        let name = |member: &crate::group::JoinedMember| {
            member
                .instance
                .clone()
                .unwrap_or_else(|| member.member.clone())
        };
        let assigns = joined
            .members
            .iter()
            .map(|member| (member.member.clone(), name(member)));
        client.assigns = if joined.skip_assignment {
            Vec::new()
        } else {
            assigns.collect()
        };
    }

    pub(super) fn refused(&mut self, client: usize, reply: &GroupReply) {
        let client = &mut self.clients[client];
        match reply {
            GroupReply::Refused(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => {
                client.member = String::new();
                client.joined = false;
            }
            // Its work is refused, not its place.
            GroupReply::Refused(GroupError::CoordinatorNotAvailable) => {}
            GroupReply::Refused(_) => client.joined = false,
            _ => {}
        }
    }

    pub(super) fn join(&mut self, at: usize) {
        let client = self.clients[at].clone();
        let uuid = Uuid(u128::from(self.random.next()).to_be_bytes());
        // A static client that restarts forgets its id.
        let forgets = client.instance.is_some() && self.random.one_in(3);
        let metadata = if self.random.one_in(8) { "t+u" } else { "t" };
        let request = Join {
            group: GROUP.to_owned(),
            member: if forgets {
                String::new()
            } else {
                client.member
            },
            instance: client.instance,
            member_id_required: client.version >= 4,
            can_skip_assignment: client.version >= 9,
            client_id: format!("c{at}"),
            client_host: "/192.0.2.1".to_owned(),
            session_timeout_ms: 6_000 + i32::try_from(self.random.below(10_000)).unwrap(),
            rebalance_timeout_ms: i32::try_from(self.random.below(10_000)).unwrap() - 1,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: subscription(metadata),
            }],
            uuid,
        };
        self.ask(Asked::Join { client: at }, GroupRequest::Join(request));
    }

    pub(super) fn waits(&self, at: usize) -> bool {
        let of = |asked: &Asked| matches!(asked, Asked::Join { client } | Asked::Sync { client, .. } if *client == at);
        self.asked.values().any(of)
    }

    pub(super) fn join_once(&mut self, at: usize) {
        if !self.waits(at) {
            self.join(at);
        }
    }

    pub(super) fn sync_once(&mut self, at: usize) {
        if !self.waits(at) {
            self.sync(at);
        }
    }

    pub(super) fn sync(&mut self, at: usize) {
        let client = self.clients[at].clone();
        if !client.joined {
            return;
        }
        let leaves_out = self.random.one_in(8);
        let share = |(id, name): &(String, String)| {
            (
                id.clone(),
                format!("{}:{name}", client.generation).into_bytes(),
            )
        };
        let request = Sync {
            group: GROUP.to_owned(),
            generation: client.generation,
            member: client.member.clone(),
            instance: client.instance.clone(),
            protocol_type: None,
            protocol: None,
            assignments: client
                .assigns
                .iter()
                .skip(usize::from(leaves_out))
                .map(share)
                .collect(),
        };
        let asked = Asked::Sync {
            client: at,
            generation: client.generation,
            name: client.name(),
        };
        self.ask(asked, GroupRequest::Sync(request));
    }

    pub(super) fn heartbeat(&mut self, at: usize) {
        let Client {
            member,
            instance,
            generation,
            ..
        } = self.clients[at].clone();
        let request = Heartbeat {
            group: GROUP.to_owned(),
            generation,
            member,
            instance,
        };
        self.ask(
            Asked::Other { client: Some(at) },
            GroupRequest::Heartbeat(request),
        );
    }

    pub(super) fn leave(&mut self, at: usize) {
        let client = core::mem::take(&mut self.clients[at].member);
        self.clients[at].joined = false;
        let members = vec![Leaver {
            member: client,
            instance: self.clients[at].instance.clone(),
        }];
        self.ask(
            Asked::Other { client: None },
            GroupRequest::Leave(Leave {
                group: GROUP.to_owned(),
                members,
            }),
        );
    }

    /// Else a group is seldom empty.
    pub(super) fn everybody_leaves(&mut self) {
        if self.random.one_in(6) {
            (0..self.clients.len()).for_each(|at| self.leave(at));
            // Those that never knew their id time out.
            (0..20).for_each(|_| self.time());
            if self.statics {
                let request = GroupRequest::Delete {
                    group: GROUP.to_owned(),
                };
                self.ask(Asked::Other { client: None }, request);
            }
        }
    }

    pub(super) fn commit(&mut self, at: usize) {
        let Client {
            member,
            instance,
            generation,
            ..
        } = self.clients[at].clone();
        let offset = |random: &mut Random| CommittedOffset {
            topic: "t".to_owned(),
            partition: i32::try_from(random.below(3)).unwrap(),
            offset: i64::try_from(random.below(1_000)).unwrap(),
            leader_epoch: -1,
            metadata: None,
        };
        let outside = self.random.one_in(4);
        let request = Commit {
            group: GROUP.to_owned(),
            generation: if outside { -1 } else { generation },
            member: if outside { String::new() } else { member },
            instance: if outside { None } else { instance },
            retention_ms: -1,
            offsets: (0..=self.random.below(2))
                .map(|_| offset(&mut self.random))
                .collect(),
        };
        self.ask(
            Asked::Other { client: Some(at) },
            GroupRequest::Commit(request),
        );
    }
}
