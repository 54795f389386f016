"""What several tests share: slow oracles and readers of recorded data; none of it is part of the product."""
