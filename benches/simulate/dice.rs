//! Numbers that look random and are the same for the same seed, on every machine and in every year.

use std::f64::consts::TAU;
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, up to 1.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// By the mean and the deviation of its logarithm.
    pub fn log_normal(&mut self, mu: f64, sigma: f64) -> f64 {
        (mu + sigma * self.normal()).exp()
    }

    /// Memory of an application in MB: the Burr distribution that Shahrad et al. fit to Azure's (figure 8).
    pub fn memory_mb(&mut self) -> u32 {
        const C: f64 = 11.652;
        const K: f64 = 0.221;
        const SCALE: f64 = 107.083;
        let mb = SCALE * (self.unit().powf(-1.0 / K) - 1.0).powf(1.0 / C);
        mb.clamp(64.0, 1536.0) as u32
    }

    /// Mean time of a function's calls: the log-normal distribution that they fit (figure 7), within a minute.
    pub fn hold(&mut self) -> Duration {
        Duration::from_secs_f64(self.log_normal(-0.38, 2.36).clamp(0.001, 60.0))
    }

    /// Loading of a function's code: an assumption, nobody published it. Half take less than 300 ms, one in forty over 2 s.
    pub fn init(&mut self) -> Duration {
        Duration::from_secs_f64(self.log_normal(0.3f64.ln(), 1.0).clamp(0.005, 10.0))
    }
}
