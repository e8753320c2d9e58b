"""The paper in one room: S, the contrastive loss over it, and the update that lowers it."""
