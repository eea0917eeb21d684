//! Trains a market of two dense layers by node perturbation, from Rust without a crate. Prints the
//! losses' bits, step by step.
mod marketplace;

use marketplace::{Builder, Market};

const BATCH: usize = 10;
const INPUTS: usize = 4;
const STEPS: usize = 30;

/// Points in [-1, 1) and which of their coordinates is the largest.
fn draw(state: &mut u32) -> (Vec<f32>, Vec<i32>) {
    let x: Vec<f32> = (0..BATCH * INPUTS)
        .map(|_| {
            *state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            ((*state >> 8) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
        })
        .collect();
    let y = x.chunks(INPUTS).map(largest).collect();
    (x, y)
}

fn largest(row: &[f32]) -> i32 {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as i32
}

fn build() -> Result<Market, marketplace::Error> {
    let mut x = 0;
    let builder = Builder::new()?.spec(5)?.linear(&mut x, INPUTS as i64, 12)?.relu(&mut x)?;
    x = 0;
    builder.spec(1)?.linear(&mut x, 12, INPUTS as i64)?.finish(19)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut market = build()?;
    let mut state = 23;
    let shape = [BATCH as i64, INPUTS as i64];
    let mut optimizer = market.optimizer(0.05, 1)?;
    for _ in 0..STEPS {
        let (x, y) = draw(&mut state);
        for loss in optimizer.train_step(&x, &shape, &y, 0.05)? {
            println!("{:08x}", loss.to_bits());
        }
    }
    let (x, y) = draw(&mut state);
    let logits = optimizer.market().infer(&x, &shape, INPUTS)?;
    let right = logits.chunks(INPUTS).zip(y).filter(|(row, label)| largest(row) == *label).count();
    println!("{right} of {BATCH} right after {STEPS} steps");
    drop(optimizer);
    if let Some(path) = std::env::args().nth(1) {
        market.save(&path, STEPS as i64)?;
    }
    Ok(())
}
