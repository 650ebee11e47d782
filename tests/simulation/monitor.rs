//! Looks from outside, again and again: ends of streams, cursors, and whether the output is the image of the input.

use std::sync::Arc;

use tidelog::broker::Principal;

use crate::exact::EXACT;
use crate::history::{Image, Sample};
use crate::readers::{DURABLE, LOOSE};
use crate::world::{INPUT, OUTPUT, World, position, stream};

/// Until the readers have everything.
pub async fn watch(world: Arc<World>) {
    let mut dice = world.dice("monitor");
    while !world.ending() {
        match dice.below(4) {
            0 | 1 => {
                look(&world, INPUT).await;
            }
            2 => {
                let name = [DURABLE.name, LOOSE.name, EXACT.name, "k3", "pull"][dice.below(5) as usize];
                if let Some(position) = position(&world, name).await.filter(|_| name != EXACT.name) {
                    world.history.lock().positions.push(position);
                }
            }
            _ => {
                let Some(before) = position(&world, "k3").await else { continue };
                let Some(output) = look(&world, OUTPUT).await else { continue };
                let Some(after) = position(&world, "k3").await else { continue };
                world.history.lock().images.push(Image { before: before.next, output, after: after.next });
            }
        }
        world.pause(&mut dice, 1, 25).await;
    }
}

/// One look at a stream; its end.
async fn look(world: &Arc<World>, name: &str) -> Option<u64> {
    let (of, began) = (stream(name), world.tick());
    let info = world.net.call("look", |broker| async move { broker.stream(&Principal::Operator, &of).await }).await?.ok()?;
    let ended = world.tick();
    let sample = Sample { began, ended, stream: name.to_owned(), id: info.id.0, log_epoch: info.log_epoch, first: info.first_offset, next: info.next_offset };
    world.history.lock().samples.push(sample);
    Some(info.next_offset)
}
