//! How much of the model a client has: said once, kept, and never more than the recipe knows.

use super::*;
use dunlin_core::recipe::SizeConfig;

fn width(share: f64) -> Width {
    Width::new(share).unwrap()
}

fn sized() -> Recipe {
    let size = |share: f64| SizeConfig { width: width(share), share: 1.0 };
    Recipe { size: [1.0, 0.5].map(size).to_vec(), ..recipe() }
}

fn check_in_as(world: &mut World, name: &str, share: f64) -> Result<Assignment, Reject> {
    let check_in = CheckIn { width: width(share), ..check_in_of(name) };
    world.coordinator.check_in(world.now, &check_in)
}

#[test]
fn the_first_width_said_is_durable_and_another_is_refused_also_after_a_restart() {
    let mut world = World::new(sized());
    world.join("a");
    world.settle();
    assert_eq!(world.coordinator.width(&client("a")), Width::WHOLE);
    assert_eq!(check_in_as(&mut world, "a", 0.25), Err(Reject::WrongWidth), "the recipe has no such size");
    assert!(check_in_as(&mut world, "a", 0.5).is_ok());
    let joined = Record::Joined { client: client("a"), token: token("a"), width: Some(width(0.5)) };
    assert_eq!(world.settle(), [Effect::Record(joined)]);
    for _ in 0..2 {
        assert_eq!(world.coordinator.width(&client("a")), width(0.5));
        assert_eq!(check_in_as(&mut world, "a", 1.0), Err(Reject::WrongWidth));
        assert!(check_in_as(&mut world, "a", 0.5).is_ok());
        assert!(world.settle().iter().all(|effect| !matches!(effect, Effect::Record(Record::Joined { .. }))));
        world.restart();
    }
}

#[test]
fn who_takes_a_name_over_may_have_another_width() {
    let mut world = World::new(sized());
    world.join("a");
    check_in_as(&mut world, "a", 0.5).unwrap();
    world.settle();
    world.pass(IDLE_MS);
    let heir = token("x");
    world.coordinator.join(world.now, &client("a"), heir).unwrap();
    assert_eq!(world.coordinator.width(&client("a")), Width::WHOLE);
    let check_in = CheckIn { session: Session { token: heir, ..session("a") }, ..check_in_of("a") };
    assert!(world.coordinator.check_in(world.now, &check_in).is_ok());
    world.settle();
    world.restart();
    assert_eq!(check_in_as(&mut world, "a", 0.5), Err(Reject::WrongSession));
    assert!(world.coordinator.check_in(world.now, &check_in).is_ok());
}

#[test]
fn without_sizes_nothing_is_written_and_only_the_whole_model_is_known() {
    let mut world = World::new(recipe());
    world.join("a");
    world.settle();
    assert_eq!(check_in_as(&mut world, "a", 0.5), Err(Reject::WrongWidth));
    assert!(check_in_as(&mut world, "a", 1.0).is_ok());
    assert_eq!(world.settle(), []);
}
