"""What meta-training is measured against: pretraining with stable-baselines3, and an oracle."""
