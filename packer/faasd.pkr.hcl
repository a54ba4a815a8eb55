# An image of a node: Amazon Linux 2023 (cgroup v2, kernel 6.1), the executable, interpreters, units, settings of the kernel. No build
# tools unless asked for, no secrets, nothing of who uses it: a node is told at boot. It is kept only if it has shown that it works.
#
#   packer/build.sh target/x86_64/faasd target/arm64/faasd

locals {
  built = formatdate("YYYYMMDD-hhmmss", timestamp())
}

source "amazon-ebs" "x86_64" {
  region        = var.region
  ami_name      = "faasd-${var.version}-x86_64-${local.built}"
  instance_type = "c7i.large"
  ssh_username  = "ec2-user"

  source_ami_filter {
    owners      = ["amazon"]
    most_recent = true
    filters = {
      name                = "al2023-ami-2023.*-kernel-6.1-x86_64"
      architecture        = "x86_64"
      virtualization-type = "hvm"
    }
  }

  # The builder's own: a key for this build alone, and no metadata without a token.
  temporary_key_pair_type = "ed25519"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # What instances of it get, whoever starts them.
  imds_support = "v2.0"

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = 8
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
    encrypted             = true
  }

  tags = {
    Name           = "faasd ${var.version} x86_64"
    "faasd:image"   = "node"
    "faasd:version" = var.version
    "faasd:digest"  = var.digest_x86_64
    "faasd:base"    = "{{ .SourceAMIName }}"
  }
}

source "amazon-ebs" "arm64" {
  region        = var.region
  ami_name      = "faasd-${var.version}-arm64-${local.built}"
  instance_type = "c7g.large"
  ssh_username  = "ec2-user"

  source_ami_filter {
    owners      = ["amazon"]
    most_recent = true
    filters = {
      name                = "al2023-ami-2023.*-kernel-6.1-arm64"
      architecture        = "arm64"
      virtualization-type = "hvm"
    }
  }

  temporary_key_pair_type = "ed25519"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  imds_support = "v2.0"

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = 8
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
    encrypted             = true
  }

  tags = {
    Name           = "faasd ${var.version} arm64"
    "faasd:image"   = "node"
    "faasd:version" = var.version
    "faasd:digest"  = var.digest_arm64
    "faasd:base"    = "{{ .SourceAMIName }}"
  }
}

build {
  sources = ["source.amazon-ebs.x86_64", "source.amazon-ebs.arm64"]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/faasd"]
  }

  provisioner "file" {
    only        = ["amazon-ebs.x86_64"]
    source      = var.executable_x86_64
    destination = "/tmp/faasd/faasd"
  }

  provisioner "file" {
    only        = ["amazon-ebs.arm64"]
    source      = var.executable_arm64
    destination = "/tmp/faasd/faasd"
  }

  provisioner "file" {
    sources     = ["${path.root}/files", "${path.root}/../systemd", "${path.root}/../config", "${path.root}/../examples/hello-python"]
    destination = "/tmp/faasd/"
  }

  provisioner "shell" {
    script          = "${path.root}/scripts/install.sh"
    execute_command = "sudo env {{ .Vars }} bash {{ .Path }}"
    environment_vars = [
      "COMPILERS=${var.compilers}",
      "CLOUDWATCH_AGENT=${var.cloudwatch_agent}",
    ]
  }

  # The node as it will be, before anything is kept: whoever fails here leaves no image.
  provisioner "shell" {
    script          = "${path.root}/scripts/self-test.sh"
    execute_command = "sudo bash {{ .Path }}"
  }

  provisioner "shell" {
    script          = "${path.root}/scripts/finish.sh"
    execute_command = "sudo bash {{ .Path }}"
  }

  post-processor "manifest" {
    output     = "faasd-images.json"
    strip_path = true
  }
}
