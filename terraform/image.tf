# The image that packer built (packer/): found by its tags, or named.

data "aws_ami" "faasd" {
  count = var.image_id == null ? 1 : 0

  owners      = ["self"]
  most_recent = true

  filter {
    name   = "tag:faasd:image"
    values = ["node"]
  }

  filter {
    name   = "architecture"
    values = [var.architecture]
  }
}

locals {
  image_id = var.image_id != null ? var.image_id : data.aws_ami.faasd[0].id
}
