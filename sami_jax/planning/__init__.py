"""What a run will need, before a pod is rented: memory, time and money, from programs compiled for a topology without it."""
