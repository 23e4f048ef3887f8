//! What superblocks say, while one of their copies rots.

use model::{SiteUuid, Uuid};

use super::world::World;
use crate::io::{Copy, Name};
use crate::{Config, DiskState, Op, read_superblock};

#[test]
fn a_disk_of_a_site_is_none_to_be_made_anew() {
    for copy in Copy::BOTH {
        let mut world = World::new(6, Config::default());
        let site = SiteUuid(Uuid([7; 16]));
        world.disk().set_identity(site, DiskState::Member).unwrap();
        world.disk = None;
        world.io.power_cut(1);
        assert!(world.io.rot(Name::Super(copy), 40, 1));
        let (superblock, _) = read_superblock(&world.io).unwrap();
        assert_eq!(
            (superblock.site, superblock.state),
            (site, DiskState::Member)
        );
    }
}

#[test]
fn a_log_does_not_end_at_a_stop_long_past() {
    for copy in Copy::BOTH {
        let mut world = World::new(6, Config::default());
        let part = world.part_new();
        world.append(part, 100);
        world.commit_all().unwrap();
        world.push(Op::Clean);
        let World { disk, queue, .. } = &mut world;
        let disk = disk.as_mut().unwrap();
        disk.commit(queue, None, &mut Vec::new()).unwrap();
        assert!(world.open().clean);
        world.append(part, 100);
        world.commit_all().unwrap();
        let committed = world.committed.clone();
        world.disk = None;
        world.io.power_cut(1);
        assert!(world.io.rot(Name::Super(copy), 40, 1));
        world.open();
        assert_eq!(world.differs(&committed), None);
    }
}
