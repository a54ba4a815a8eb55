# Laid over the module by scripts/deploy-test.sh: what the emulator gives back otherwise than it was told, so that a second plan would
# change it again for ever. AWS itself does not. docs/operations.md lists these.

# Gives tags of the template itself back as tags of what it launches.
resource "aws_launch_template" "controllers" {
  lifecycle {
    ignore_changes = [tag_specifications]
  }
}

resource "aws_launch_template" "workers" {
  lifecycle {
    ignore_changes = [tag_specifications]
  }
}

# Writes the policy in other words.
resource "aws_sqs_queue" "jobs" {
  lifecycle {
    ignore_changes = [redrive_policy]
  }
}

# Forgets the description of a rule that names a group.
resource "aws_vpc_security_group_ingress_rule" "controller_from" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_ingress_rule" "controller_redis" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_ingress_rule" "workers_from_controllers" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints_from" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_egress_rule" "controllers_to_api" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_egress_rule" "controllers_to_workers" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_egress_rule" "workers_to_endpoints" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_egress_rule" "workers_to_gateways" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_egress_rule" "workers_to_controllers" {
  lifecycle {
    ignore_changes = [description]
  }
}

# Forgets warm-up, and the mix of instance types.
resource "aws_autoscaling_group" "controllers" {
  lifecycle {
    ignore_changes = [default_instance_warmup]
  }
}

resource "aws_autoscaling_group" "workers" {
  lifecycle {
    ignore_changes = [desired_capacity, default_instance_warmup, mixed_instances_policy]
  }
}

# Gives it back as switched off, with an empty forecast.
resource "aws_autoscaling_policy" "work" {
  lifecycle {
    ignore_changes = [enabled, predictive_scaling_configuration]
  }
}

# Gives back a queue and a role that nobody named.
resource "aws_autoscaling_lifecycle_hook" "controllers" {
  lifecycle {
    ignore_changes = [notification_target_arn, role_arn]
  }
}

resource "aws_autoscaling_lifecycle_hook" "workers" {
  lifecycle {
    ignore_changes = [notification_target_arn, role_arn]
  }
}
