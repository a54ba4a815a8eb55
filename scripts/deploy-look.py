"""Looks at what `terraform apply` made in an emulator of AWS; scripts/deploy-test.sh calls it.

    deploy-look.py state FILE               a state file holds no secret
    deploy-look.py made FILE NAME           what was made is what is promised
    deploy-look.py configuration FILE EXE   the daemon accepts the configuration files that nodes get
    deploy-look.py tables FILE              the tables are those that the daemon makes itself (FAASD: its executable)

FILE is the example's output as JSON. Ends with code 1 and a sentence where something is wrong.
"""

import json
import os
import subprocess
import sys
import tempfile


def fail(sentence):
    sys.exit(sentence)


def outputs(path):
    with open(path) as file:
        return json.load(file)


def state(path):
    with open(path) as file:
        resources = json.load(file)["resources"]
    parameters = [i["attributes"] for r in resources if r["type"] == "aws_ssm_parameter" for i in r["instances"]]
    if len(parameters) < 3:
        fail(f"{len(parameters)} parameters in the state: the check looks in the wrong place")
    for parameter in parameters:
        if parameter["type"] != "SecureString" or parameter.get("value") or parameter.get("value_wo"):
            fail(f"{parameter['name']} is readable in the state")


def made(path, name):
    import boto3

    told = outputs(path)
    ssm, ec2, s3 = (boto3.client(service) for service in ("ssm", "ec2", "s3"))
    found = ssm.get_parameters_by_path(Path=told["secrets_path"], WithDecryption=True)["Parameters"]
    values = {parameter["Name"].rsplit("/", 1)[1]: parameter["Value"] for parameter in found}
    if len(bytes.fromhex(values["secrets-key"])) != 32:
        fail("the sealing key is not 32 bytes in hex")
    if len(values["fleet-secret"]) < 32:
        fail("the fleet's secret is shorter than the daemon takes")
    if len(set(values.values())) != len(values):
        fail("two secrets are the same")

    described = ec2.describe_launch_template_versions(Versions=["$Latest"], LaunchTemplateName=told["controller_group"])
    template = described["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    import base64

    user_data = base64.b64decode(template["UserData"]).decode()
    for secret, value in values.items():
        if value in user_data:
            fail(f"{secret} is in user data")
    written = json.loads(user_data.removeprefix("#cloud-config\n"))
    if not {"/etc/faasd/boot.env", "/etc/faasd/environment"} <= {file["path"] for file in written["write_files"]}:
        fail("user data does not write what the boot script reads")
    options = template["MetadataOptions"]
    if (options["HttpTokens"], options["HttpPutResponseHopLimit"]) != ("required", 1):
        fail(f"metadata of instances is too open: {options}")
    if not all(device["Ebs"]["Encrypted"] for device in template["BlockDeviceMappings"]):
        fail("a disk is not encrypted")

    if ec2.describe_nat_gateways(Filter=[])["NatGateways"]:
        fail("there is a NAT gateway")
    block = s3.get_public_access_block(Bucket=told["bucket"])["PublicAccessBlockConfiguration"]
    if not all(block.values()):
        fail(f"the bucket is not closed to the public: {block}")
    for group in ec2.describe_security_groups()["SecurityGroups"]:
        tags = {tag["Key"]: tag["Value"] for tag in group.get("Tags", [])}
        if tags.get("faasd:fleet") != name:
            continue
        for rule in group["IpPermissions"]:
            if any(network["CidrIp"] == "0.0.0.0/0" for network in rule.get("IpRanges", [])):
                fail(f"{group['GroupName']} is open to the world")


def configuration(path, executable):
    for role, text in outputs(path)["configuration"].items():
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "faasd.toml")
            with open(file, "w") as out:
                out.write(text)
            checked = subprocess.run([executable, "config", "check", "--config", file], capture_output=True, text=True)
            if checked.returncode != 0:
                fail(f"{role}: {checked.stdout}{checked.stderr}\n{text}")


def table_shape(client, table, prefix):
    about = client.describe_table(TableName=table)["Table"]
    types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in about["AttributeDefinitions"]}
    keys = lambda schema: [(key["AttributeName"], key["KeyType"], types[key["AttributeName"]]) for key in schema]
    ttl = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    return table.removeprefix(prefix), {
        "keys": keys(about["KeySchema"]),
        "indexes": sorted(
            (index["IndexName"], keys(index["KeySchema"]), index["Projection"]["ProjectionType"],
             sorted(index["Projection"].get("NonKeyAttributes", [])))
            for index in about.get("GlobalSecondaryIndexes", [])
        ),
        "ttl": ttl.get("AttributeName"),
        "on demand": about.get("BillingModeSummary", {}).get("BillingMode"),
    }


def tables(path):
    import boto3

    told = outputs(path)
    client = boto3.client("dynamodb")
    prefix = "made-by-the-daemon"
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "faasd.toml")
        with open(file, "w") as out:
            out.write(next(iter(told["configuration"].values())))
        # Over the file: tables of another name, beside Terraform's.
        flags = ["--config", file, "--set", f"aws.table_prefix={prefix}"]
        made = subprocess.run([os.environ["FAASD"], "admin", "create-tables", *flags], capture_output=True, text=True)
        if made.returncode != 0:
            fail(f"faasd admin create-tables: {made.stdout}{made.stderr}")
    everything = [name for page in client.get_paginator("list_tables").paginate() for name in page["TableNames"]]
    own = dict(table_shape(client, name, f"{prefix}-") for name in everything if name.startswith(f"{prefix}-"))
    common = os.path.commonprefix(list(told["tables"].values()))
    common = common[: common.rindex("-") + 1]
    terraform = dict(table_shape(client, name, common) for name in told["tables"].values())
    if not own:
        fail("the daemon made no table")
    if own != terraform:
        fail(f"the daemon makes\n{json.dumps(own, indent=1)}\nand Terraform\n{json.dumps(terraform, indent=1)}")


if __name__ == "__main__":
    {"state": state, "made": made, "configuration": configuration, "tables": tables}[sys.argv[1]](*sys.argv[2:])
